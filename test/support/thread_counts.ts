// Prints how many threads the process has while a worker calls the addon (a file, its argument) and when that worker,
// the only one that loaded it, has ended. A program of its own: the addon's threads are the process'.
import {readdirSync} from 'node:fs';
import {setTimeout} from 'node:timers/promises';
import {Worker} from 'node:worker_threads';

import {rawCall} from '../native/raw_call.js';

const PROGRAM = `
  const {readdirSync} = require('node:fs');
  const {parentPort, workerData: {path, call: {description, tensors, results}}} = require('node:worker_threads');
  const module_ = {exports: {}};
  process.dlopen(module_, path);
  const run = threads => {
    module_.exports.setThreads(threads);
    module_.exports.run(description, tensors, results);
    return readdirSync('/proc/self/task').length;
  };
  parentPort.postMessage([1, 3, 2, 4].map(run));
`;

const count = () => readdirSync('/proc/self/task').length;
/** Threads once `isDone`, or after five seconds. */
async function settled(isDone: (threads: number) => boolean): Promise<number> {
  for (let n = 0; n < 100 && !isDone(count()); n++) {
    await setTimeout(50);
  }
  return count();
}

/** What the worker has to say, when it is gone. */
function inWorker(program: string): Promise<number[]> {
  const worker = new Worker(
      program, {eval: true, workerData: {path: process.argv[2], call: rawCall('forward')}, execArgv: []});
  return new Promise((resolve, reject) => {
    let said: number[];
    worker.once('message', message => {
      said = message as number[];
    });
    worker.once('error', reject);
    worker.once('exit', () => resolve(said));
  });
}

await inWorker('require("node:worker_threads").parentPort.postMessage([]);'); // what Node starts for its first worker
const before = await settled(() => false);
const working = await inWorker(PROGRAM);
console.log(JSON.stringify({working, left: await settled(threads => threads <= before) - before}));
