/**
 * Has `tune` choose among the plans of a few calls on this device, twice, and shows what it timed:
 *   npx tsx benchmarks/tune.ts [--milliseconds 200] [--out FOLDER]
 * With --out it leaves tune-<device>.json there. Winners go to a file of their own, never to the user's. Exit code 1
 * where a plan gave wrong results, or a winner is not remembered.
 */
import {mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {tune} from '../src/index.js';
import type {ComputeType, TuneReport} from '../src/index.js';
import {enableWebGPU} from '../src/node.js';

import {slug} from './core/slug.js';
import {describeEnvironment} from './environment.js';

const {values: args} = parseArgs({options: {
  milliseconds: {type: 'string', default: '200'},
  out: {type: 'string'},
}});
const milliseconds = Number(args.milliseconds);

type Shape = [batch: number, queries: number, heads: number, headSize: number];
interface Tuned {
  readonly q: Shape;
  readonly keys?: number;
  readonly causal: boolean;
  readonly computeType: ComputeType;
  readonly gradients: boolean;
}

const CALLS: readonly Tuned[] = [64, 128].flatMap(headSize => (['float32', 'float16'] as const).flatMap(computeType => [
  {q: [1, 1024, 16, headSize], causal: true, computeType, gradients: true},
  {q: [1, 4096, 16, headSize], causal: false, computeType, gradients: false},
  {q: [1, 4096, 16, headSize], causal: true, computeType, gradients: true},
  {q: [1, 1, 32, headSize], keys: 8192, causal: true, computeType, gradients: false},
] as Tuned[]));

const folder = mkdtempSync(join(tmpdir(), 'winners-'));
process.env.FLASH_ATTENTION_CACHE = join(folder, 'winners.json');

const describe = ({q, keys = q[1], causal, computeType, gradients}: Tuned) =>
    `B${q[0]} H${q[2]} ${q[1]}×${keys} D${q[3]} ${causal ? 'causal ' : ''}${computeType}` +
    `${gradients ? ' with gradients' : ''}`;

const showTimes = ({timed}: TuneReport) => timed.map(({kind, milliseconds: ms, problem}) =>
    `${kind} ${ms === undefined ? problem : `${ms.toFixed(3)} ms`}`).join(', ');

/** On a new device. Gives what tune said of each call. */
async function tuneAll(): Promise<TuneReport[]> {
  await enableWebGPU({replace: true});
  const reports: TuneReport[] = [];
  for (const {q, keys = q[1], causal, computeType, gradients} of CALLS) {
    const k: Shape = [q[0], keys, q[2], q[3]];
    reports.push(await tune({q, k, v: k}, {causal, computeType}, {gradients, milliseconds}));
  }
  return reports;
}

const {adapter} = await enableWebGPU({replace: true});
const environment = describeEnvironment(adapter);
console.log(`${environment.device}, commit ${environment.commit}`);
const [first, second] = [await tuneAll(), await tuneAll()];
const failures: string[] = [];
for (const [n, call] of CALLS.entries()) {
  const reports = [first[n], second[n]];
  console.log(`${describe(call).padEnd(56)} ${reports.map(({winner}) => winner).join(', ')}: ${showTimes(first[n])}`);
  failures.push(...reports.flatMap(({timed}) => timed.filter(({problem}) => problem !== undefined).map(
      ({kind, problem}) => `${describe(call)} by ${kind}: ${problem}`)));
}
const text = readFileSync(process.env.FLASH_ATTENTION_CACHE, 'utf8');
if (!second.every(({winner}) => text.includes(`"${winner}"`))) {
  failures.push(`not every winner is in the file: ${text}`);
}
rmSync(folder, {recursive: true});
failures.forEach(failure => console.log(`WRONG ${failure}`));
if (args.out !== undefined) {
  mkdirSync(args.out, {recursive: true});
  const rows = CALLS.map((call, n) => ({
    ...call, runs: [first[n], second[n]].map(({winner, timed}) => ({winner, timed})),
  }));
  writeFileSync(join(args.out, `tune-${slug(environment.device)}.json`), `${JSON.stringify(
      {environment, milliseconds, failures, results: rows}, null, 1)}\n`);
}
console.log(`tensors left: ${tf.memory().numTensors}`);
process.exit(failures.length > 0 ? 1 : 0); // Dawn keeps Node alive
