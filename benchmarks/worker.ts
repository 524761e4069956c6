/** Measures on a tfjs backend what its parent asks for: supervise.ts starts it, so that nothing here can hang a run. */
import {setFlagsFromString} from 'node:v8';
import {parseArgs} from 'node:util';
import {runInNewContext} from 'node:vm';

import * as tf from '@tensorflow/tfjs';

import {splitText} from '../examples/gpt/text.js';
import type {Corpus} from '../examples/gpt/text.js';
import {loadText} from '../examples/train_gpt/data.js';

import {NotMeasured} from './core/not_measured.js';
import {perform} from './core/perform.js';
import {describeEnvironment, measuringFlags, useBackend} from './environment.js';
import {serveMeasurements} from './messages.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  dawn: {type: 'string', default: ''},
  native: {type: 'string', default: ''}, // `off` leaves the addon out
}});
if (args.native !== '') {
  process.env.FLASH_ATTENTION_NATIVE = args.native;
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

let corpus: Corpus|undefined;
const place = {
  corpus: () => Promise.resolve(corpus ??= splitText(loadText(undefined).text)),
  heapBytes: () => {
    collectGarbage();
    return process.memoryUsage().heapUsed;
  },
};

try {
  const adapter = await useBackend(args.backend, measuringFlags(args.dawn.split(',').filter(Boolean)));
  const {device} = tf.backend() as unknown as {device?: GPUDevice};
  const errors: string[] = [];
  device?.addEventListener('uncapturederror', event => {
    errors.push((event as GPUUncapturedErrorEvent).error.message);
  });
  serveMeasurements(describeEnvironment(adapter), async (measurement, emit) => {
    errors.length = 0;
    await perform(measurement, place, emit);
    await device?.queue.onSubmittedWorkDone();
    if (errors.length > 0) {
      throw new Error(`the device reports: ${errors[0].slice(0, 500)}`);
    }
  }, error => error instanceof NotMeasured);
} catch (error) {
  process.send?.({type: 'failed', why: (error as Error).message});
}
