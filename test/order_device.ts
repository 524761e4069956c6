/**
 * Attention between a backend's own ops, on a device that is busy for longer than it takes to ask for them: everything
 * that is asked for must come in its order, and memory that is given back while it is still read must not be written to
 * early. For machines that the test runner does not reach:
 *   npx tsx test/order_device.ts [--backend tensorflow] [--rounds 20] [--repeats 3] [--length 2048] [--millions 32]
 * --millions is how many elements the device is kept busy with, ten times before each call.
 * Chains of ops that nobody waits for give the same bits as those whose every result goes through the host's memory.
 * Exit code 1 where they do not.
 */
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {describeEnvironment, useBackend} from '../benchmarks/environment.js';
import {flashAttention, KvCache} from '../src/index.js';
import {nativeReport} from '../src/node.js';

import {Random} from './support/random.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'tensorflow'},
  rounds: {type: 'string', default: '20'},
  repeats: {type: 'string', default: '3'},
  length: {type: 'string', default: '2048'},
  millions: {type: 'string', default: '32'},
}});
const [rounds, repeats, length, millions] = [args.rounds, args.repeats, args.length, args.millions].map(Number);
const [HEADS, SIZE, TOKENS] = [8, 64, 16];

/** What is done with each result before it is used: nothing, or a way through the host's memory. */
type Settle = <T extends tf.Tensor>(x: T) => T;

const WAYS: Record<string, Settle> = {
  'through the host': x => tf.tensor(x.dataSync(), x.shape) as typeof x,
  'nobody waits': x => x,
};

/** The same values, late: many times as much work for the device as for who asks for it. */
const late = <T extends tf.Tensor4D>(x: T, settle: Settle): T => tf.tidy(() => {
  let many: tf.Tensor4D = tf.tile(x, [Math.ceil(1e6 * millions / x.size), 1, 1, 1]);
  for (let n = 0; n < 10; n++) {
    const next = tf.neg(many);
    many.dispose();
    many = next;
  }
  return settle(tf.slice(many, [0, 0, 0, 0], x.shape) as T);
});

/** Memory that was given back just now is written to. */
const litter = (like: tf.Tensor) => tf.tidy(() => {
  for (let n = 0; n < 4; n++) {
    tf.addN([tf.fill(like.shape, NaN), like]);
  }
});

const step = (x: tf.Tensor4D, settle: Settle, computeType: 'float32'|'bfloat16'): tf.Tensor4D => tf.tidy(() => {
  const f = (q: tf.Tensor4D) => flashAttention(q, late(x, settle), tf.neg(x), {causal: true, computeType});
  const output = settle(f(late(x, settle)));
  litter(x);
  const gradient = tf.tidy(() => settle(tf.grad(f as (x: tf.Tensor) => tf.Tensor)(late(x, settle)) as tf.Tensor4D));
  litter(x);
  return settle(tf.tanh(tf.add<tf.Tensor4D>(tf.sub(x, output), gradient)));
});

function training(settle: Settle, computeType: 'float32'|'bfloat16'): Float32Array {
  const random = new Random(5);
  const values = Float32Array.from({length: length * HEADS * SIZE}, () => random.normal());
  return tf.tidy(() => {
    let x = tf.tensor4d(values, [1, length, HEADS, SIZE]);
    for (let n = 0; n < rounds; n++) {
      const next = step(x, settle, computeType);
      x.dispose();
      x = next;
    }
    return x.dataSync() as Float32Array;
  });
}

/** Rows that are made late and appended to a cache, which is read at once. */
function generation(settle: Settle): Float32Array {
  const random = new Random(6);
  const cache = new KvCache({batch: 2, capacity: 64 + TOKENS * rounds, keyHeads: HEADS, headSize: SIZE});
  const row = (rows: number) => tf.tensor4d(
      Float32Array.from({length: 2 * rows * HEADS * SIZE}, () => random.normal()), [2, rows, HEADS, SIZE]);
  const outputs = tf.tidy(() => {
    let q = row(1);
    cache.attend(row(64), {k: row(64), v: row(64)});
    for (let n = 0; n < TOKENS * rounds; n++) {
      q = tf.tidy(() => {
        const [k, v] = [late(q, settle), late(tf.neg(q), settle)];
        return settle(tf.tanh(tf.mul<tf.Tensor4D>(cache.attend(q, {k, v, causal: true}), 3)));
      });
      litter(q);
    }
    return q.dataSync() as Float32Array;
  });
  cache.dispose();
  return outputs;
}

const CHAINS: Record<string, (settle: Settle) => Float32Array> = {
  'attention and its gradient, float32': settle => training(settle, 'float32'),
  'attention and its gradient, bfloat16': settle => training(settle, 'bfloat16'),
  'a growing cache': generation,
};

const bitsOf = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

const environment = describeEnvironment(await useBackend(args.backend));
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}`);
let failed = 0;
for (const [name, chain] of Object.entries(CHAINS)) {
  const expected = chain(WAYS['through the host']);
  if (!expected.every(Number.isFinite)) {
    throw new Error(`${name}: not finite`);
  }
  const times: number[] = [];
  let wrong = 0;
  for (let n = 0; n < repeats; n++) {
    const start = performance.now();
    wrong += bitsOf(chain(WAYS['nobody waits'])).equals(bitsOf(expected)) ? 0 : 1;
    times.push(performance.now() - start);
  }
  failed += wrong;
  console.log(`${name}: ${wrong === 0 ? 'the same bits' : `OTHER bits in ${wrong}`} of ${repeats} times, ` +
      `${times.map(time => time.toFixed(0)).join(', ')} ms`);
}
console.log(JSON.stringify({calls: nativeReport().calls, tensors: tf.memory().numTensors}));
console.log(`${Object.keys(CHAINS).length * repeats - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
