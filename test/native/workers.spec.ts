import {Worker} from 'node:worker_threads';

import {nativeAddon} from '../../src/backends/native/load.js';

import {addon, rawCall, runRaw} from './raw_call.js';

const RUNS = 200;

/** Loads the addon for itself, runs a call again and again, and says whether it always gave the same. */
const PROGRAM = `
  const {parentPort, workerData: {path, call, runs}} = require('node:worker_threads');
  const module_ = {exports: {}};
  process.dlopen(module_, path);
  const {description, tensors, results} = call;
  let first;
  for (let n = 0; n < runs; n++) {
    module_.exports.run(description, tensors, results);
    const numbers = results.map(result => [...result]);
    first ??= numbers;
    if (JSON.stringify(numbers) !== JSON.stringify(first)) {
      throw new Error('run ' + n + ' gave something else');
    }
  }
  parentPort.postMessage(first);
`;

function inWorker(kind: 'forward'|'backward'): Promise<number[][]> {
  const worker = new Worker(
      PROGRAM, {eval: true, workerData: {path: nativeAddon().path, call: rawCall(kind), runs: RUNS}, execArgv: []});
  return new Promise((resolve, reject) => {
    let result: number[][];
    worker.once('message', message => {
      result = message as number[][];
    });
    worker.once('error', reject);
    worker.once('exit', code => code === 0 ? resolve(result) : reject(new Error(`ended with ${code}`)));
  });
}

describe('workers', () => {
  it('use the addon at once, and after others have ended', async () => {
    const before = addon().calls();
    for (let round = 0; round < 3; round++) {
      const workers = [inWorker('forward'), inWorker('backward'), inWorker('backward')];
      const expected = (['forward', 'backward'] as const)
          .map(kind => runRaw(rawCall(kind)).map(result => [...result]));
      const [forward, ...backward] = await Promise.all(workers);
      expect(forward).toEqual(expected[0]);
      backward.forEach(result => expect(result).toEqual(expected[1]));
    }
    const after = addon().calls();
    expect(after.forward - before.forward).toBe(3 * (RUNS + 1));
    expect(after.backward - before.backward).toBe(3 * (2 * RUNS + 1));
  }, 60_000);
});
