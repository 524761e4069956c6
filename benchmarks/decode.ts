/**
 * npm run bench:decode: one query over a cache of keys and values, as when a model generates text. Verifies against
 * float64, then times flashAttentionWithKvCache against tfjs' own matMul, softmax, matMul over the same rows in the
 * same run, and writes benchmarks/results/decode-<device>.json.
 */
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithKvCache} from '../src/index.js';

import {standardAttention} from './attention_kinds.js';
import type {DecodeKind, DecodeResult, DecodeResultsFile} from './decode_results.js';
import {describeEnvironment, slug, useBackend} from './environment.js';
import {time} from './timing.js';
import {outputError} from './verify.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  keys: {type: 'string', default: '4096,8192,16384,32768,65536'},
  heads: {type: 'string', default: '32'},
  keyHeads: {type: 'string', default: '32'},
  size: {type: 'string', default: '128'},
  splits: {type: 'string', default: '0'},
  out: {type: 'string', default: 'benchmarks/results'},
}});

const TOLERANCE = 1e-4;
const [queryHeads, keyHeads, headSize] = [Number(args.heads), Number(args.keyHeads), Number(args.size)];

/** Numbers in [−1, 1] spread on the device, [1,heads,rows,size]. */
function spread(heads: number, rows: number, seed: number): tf.Tensor4D {
  return tf.tidy(() => {
    const along = (count: number, step: number) => tf.mod(tf.mul(tf.range(0, count), step), 2 * Math.PI);
    const a = tf.reshape(along(heads * rows, 12.9898 + seed), [-1, 1]);
    const b = tf.reshape(along(headSize, 78.233), [1, -1]);
    const noise = tf.sin(tf.mul(tf.sin(tf.add(a, b)), 4375.5453 + seed));
    return tf.reshape(noise, [1, heads, rows, headSize]) as tf.Tensor4D;
  });
}

/** The same elements in the layout of a cache, [1,rows,heads,size]. */
const cacheLayout = (x: tf.Tensor4D): tf.Tensor4D => tf.transpose(x, [0, 2, 1, 3]);

async function measure(keys: number): Promise<DecodeResult[]> {
  const [q, k, v] = [spread(queryHeads, 1, 1), spread(keyHeads, keys, 2), spread(keyHeads, keys, 3)];
  const [query, kCache, vCache] = [q, k, v].map(cacheLayout);
  const flash = (numSplits: number) =>
      flashAttentionWithKvCache(query, kCache, vCache, {cacheLengths: keys, numSplits});
  // Standard attention gets its keys and values heads first, so that it need not transpose them.
  const standard = standardAttention();
  const headOf = Array.from({length: queryHeads}, (_, h) => Math.floor(h * keyHeads / queryHeads));
  const [keysOfHeads, valuesOfHeads] = [k, v].map(x => queryHeads === keyHeads ? x : tf.gather(x, headOf, 1));
  const results: DecodeResult[] = [];
  const runs: Array<[DecodeKind, number, () => tf.Tensor4D]> = [
    ...args.splits.split(',').map(Number).map((numSplits): [DecodeKind, number, () => tf.Tensor4D] =>
        ['flash', numSplits, () => flash(numSplits)]),
    ['standard', 0, () => standard(q, keysOfHeads, valuesOfHeads)],
  ];
  for (const [kind, numSplits, run] of runs) {
    const output = run();
    const headsFirst = kind === 'flash' ? tf.tidy(() => cacheLayout(output)) : output;
    const error = await outputError(q, keysOfHeads, valuesOfHeads, false, headsFirst);
    tf.dispose([output, headsFirst]);
    if (!(error <= TOLERANCE)) {
      throw new Error(`${kind} over ${keys} keys: wrong results, relative error ${error}; nothing was timed`);
    }
    const timing = await time(run);
    const bytes = 4 * 2 * keyHeads * keys * headSize;
    results.push({
      kind, keys, queryHeads, keyHeads, headSize, numSplits, ...timing,
      gigabytesPerSecond: bytes / timing.medianMs / 1e6,
    });
    console.log(
        `${String(keys).padStart(7)} keys ${kind.padEnd(9)} splits ${String(numSplits).padStart(3)} ` +
        `${timing.medianMs.toFixed(3).padStart(9)} ms ±${(100 * timing.spread).toFixed(0)}%, ` +
        `${(bytes / timing.medianMs / 1e6).toFixed(0)} GB/s`);
  }
  tf.dispose([q, k, v, query, kCache, vCache, keysOfHeads, valuesOfHeads]);
  return results;
}

const adapter = await useBackend(args.backend);
const environment = describeEnvironment(adapter);
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}; ` +
            `${queryHeads} heads, ${keyHeads} key heads of ${headSize}`);
const results: DecodeResult[] = [];
for (const keys of args.keys.split(',').map(Number)) {
  results.push(...await measure(keys));
}
mkdirSync(args.out, {recursive: true});
const file = join(args.out, `decode-${slug(environment.device)}.json`);
const contents: DecodeResultsFile = {environment, results};
writeFileSync(file, `${JSON.stringify(contents, null, 1)}\n`);
console.log(`written: ${file}`);
