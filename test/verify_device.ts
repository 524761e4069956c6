/**
 * Runs the case table on a real device and says how it went: for machines that the test runner does not reach.
 *   npx tsx test/verify_device.ts [--backend webgpu|cpu|wasm] [--seed 0]
 * Another seed draws other numbers for the same shapes. Exit code 1 when a case fails.
 */
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {findNodeAdapter, registerNodeWebGPU} from '../src/backends/webgpu/node_device.js';
import '../src/index.js';

import {caseTable} from './support/cases.js';
import {judgeCase} from './support/run_case.js';
import {deviceErrors} from './support/webgpu_device.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  seed: {type: 'string', default: '0'},
}});

if (args.backend === 'webgpu') {
  registerNodeWebGPU();
  console.log((await findNodeAdapter()).description);
} else if (args.backend === 'wasm') {
  await import('@tensorflow/tfjs-backend-wasm');
}
if (!await tf.setBackend(args.backend)) {
  console.error(`the backend ${args.backend} does not start`);
  process.exit(1);
}

let passed = 0;
let failed = 0;
let worst = 0;
const run = async () => {
  for (const c of caseTable(Number(args.seed))) {
    const judged = await judgeCase(c);
    const failures = judged.filter(({ok}) => !ok);
    judged.filter(({error, allowed}) => allowed > 0 && error > 0).forEach(({error, allowed}) => {
      worst = Math.max(worst, error / allowed);
    });
    if (failures.length > 0) {
      failed++;
      console.log(c.name, failures.map(({message}) => message));
    } else {
      passed++;
    }
  }
};
const errors = args.backend === 'webgpu' ? await deviceErrors(run) : (await run(), []);
errors.forEach(message => console.log('device error:', message));
console.log(`seed ${args.seed}: largest error is ${(100 * worst).toFixed(0)}% of what is allowed`);
console.log(`${passed} passed, ${failed + errors.length} failed`);
process.exit(failed + errors.length > 0 ? 1 : 0);
