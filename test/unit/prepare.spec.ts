import * as tf from '@tensorflow/tfjs';

import {
  flashAttention, flashAttentionKvPacked, flashAttentionQkvPacked, flashAttentionVarlen, flashAttentionWithKvCache,
  flashAttentionWithLse, prepare, tune,
} from '../../src/index.js';
import type {CallShapeOptions, CallShapes, PrepareOptions} from '../../src/index.js';
import {appendCall, kernelCall} from '../../src/op/kernels.js';
import type {AppendAttrs, AttentionAttrs, GradAttrs, PlannedKernel} from '../../src/op/kernels.js';
import {plannedCall} from '../../src/op/planned_call.js';

/** What a kernel works from, without the seed of dropout: its problem, the shapes of its tensors, what is wanted. */
function described(name: string, inputs: readonly tf.TensorInfo[], attrs: unknown) {
  const {problem, tensors} = name === 'FlashAttentionCacheAppend' ? appendCall(inputs, attrs as AppendAttrs) :
                                                                    kernelCall(inputs, attrs as AttentionAttrs);
  const shapes = Object.fromEntries(
      Object.entries(tensors).map(([input, {shape, dtype}]) => [input, `${dtype} [${shape}]`]).sort());
  return {name, problem: {...problem, seed: undefined}, shapes, wanted: (attrs as GradAttrs).wanted};
}

/** The kernels of ours that a call runs. */
function kernelsOf(call: () => unknown) {
  const engine = tf.engine();
  const runKernel = engine.runKernel.bind(engine);
  const list: Array<ReturnType<typeof described>> = [];
  const spy = spyOn(engine, 'runKernel').and.callFake(((name: string, inputs: tf.TensorInfo[], attrs: unknown) => {
    if (name.startsWith('FlashAttention')) {
      list.push(described(name, inputs, attrs));
    }
    return runKernel(name, inputs as unknown as tf.NamedTensorMap, attrs as tf.NamedAttrMap);
  }) as unknown as typeof engine.runKernel);
  tf.tidy(() => {
    call();
  });
  spy.and.callThrough();
  return list;
}

const planned = (kernels: readonly PlannedKernel[]) =>
    kernels.map(({name, inputs, attrs}) => described(name, inputs, attrs));

const zeros = (...shape: number[]) => tf.zeros(shape as [number, number, number, number]);
const ints = (values: number[], ...shape: number[]) => tf.tensor(values, shape, 'int32');

type Call = [what: string, shapes: CallShapes, options: CallShapeOptions, what: PrepareOptions['gradients'],
  call: () => unknown];

const CALLS: Call[] = [
  ['defaults', {q: [1, 4, 2, 8], k: [1, 5, 2, 8], v: [1, 5, 2, 3]}, {}, false,
    () => flashAttention(zeros(1, 4, 2, 8), zeros(1, 5, 2, 8), zeros(1, 5, 2, 3))],
  ['all gradients, heads first', {q: [1, 2, 4, 8], k: [1, 1, 5, 8], v: [1, 1, 5, 3]}, {layout: 'bhnd'}, true,
    () => tf.grads((q, k, v) => flashAttention(q as tf.Tensor4D, k, v, {layout: 'bhnd'}))(
        [zeros(1, 2, 4, 8), zeros(1, 1, 5, 8), zeros(1, 1, 5, 3)])],
  ['every option', {q: [2, 4, 2, 8], k: [2, 5, 2, 8], v: [2, 5, 2, 3]},
    {
      causal: true, causalAlignment: 'top-left', windowSize: [3, 1], softmaxScale: 2, softcap: 4, dropoutP: 0.5,
      mask: [4, 1], bias: [5], alibiSlopes: [2, 2], sinks: [2], queryLengths: [2], keyLengths: [2],
    },
    ['v', 'q', 'bias'],
    () => tf.grads((...[q, v, bias]) => flashAttention(q as tf.Tensor4D, zeros(2, 5, 2, 8), v, {
      causal: true, causalAlignment: 'top-left', windowSize: [3, 1], softmaxScale: 2, softcap: 4, dropoutP: 0.5,
      seed: 1, mask: tf.ones([4, 1], 'bool'), bias, alibiSlopes: zeros(2, 2), sinks: zeros(2), queryLengths: [4, 2],
      keyLengths: ints([5, 5], 2),
    }))([zeros(2, 4, 2, 8), zeros(2, 5, 2, 3), zeros(5)])],
  ['qkv packed', {qkv: [1, 6, 3, 2, 8]}, {keyLengths: [1]}, true,
    () => tf.grad(qkv => flashAttentionQkvPacked(qkv, {keyLengths: [3]}))(zeros(1, 6, 3, 2, 8))],
  ['kv packed', {q: [1, 4, 2, 8], kv: [1, 6, 2, 1, 8]}, {}, ['kv'],
    () => tf.grad(kv => flashAttentionKvPacked(zeros(1, 4, 2, 8), kv))(zeros(1, 6, 2, 1, 8))],
  ['end to end', {q: [9, 2, 8], k: [7, 2, 8], v: [7, 2, 8]}, {cuSeqlensQ: [0, 4, 9], cuSeqlensK: [0, 7, 7]}, true,
    () => tf.grads((q, k, v) => flashAttentionVarlen(q, k, v, [0, 4, 9], [0, 7, 7]))(
        [zeros(9, 2, 8), zeros(7, 2, 8), zeros(7, 2, 8)])],
  ['a cache', {q: [2, 1, 4, 8], kCache: [2, 20, 2, 8], vCache: [2, 20, 2, 8], k: [2, 1, 2, 8], v: [2, 1, 2, 8]},
    {causal: true, numSplits: 3}, false,
    () => flashAttentionWithKvCache(zeros(2, 1, 4, 8), zeros(2, 20, 2, 8), zeros(2, 20, 2, 8), {
      causal: true, numSplits: 3, k: zeros(2, 1, 2, 8), v: zeros(2, 1, 2, 8), cacheLengths: [3, 4],
    })],
  ['a cache in pages', {q: [2, 1, 4, 8], kCache: [4, 10, 2, 8], vCache: [4, 10, 2, 8]}, {blockTable: [2, 2]}, false,
    () => flashAttentionWithKvCache(zeros(2, 1, 4, 8), zeros(4, 10, 2, 8), zeros(4, 10, 2, 8),
        {blockTable: ints([0, 1, 2, 3], 2, 2), cacheLengths: 12})],
];

const q = [1, 4, 2, 8];

const MALFORMED: Array<[string, unknown, unknown, unknown, RegExp]> = [
  ['no tensors', {}, {}, {}, /expected shapes of q, k, v, or qkv, or q, kv, .* for the tensors of a call/],
  ['no v', {q, k: q}, {}, {}, /expected shapes of q, k, v/],
  ['an unknown tensor', {q, k: q, v: q, w: q}, {}, {}, /expected one of q, k, v, .* received 'w'/],
  ['text', {q: '1,4,2,8', k: q, v: q}, {}, {}, /expected a shape \(an array of .* for q, received '1,4,2,8'/],
  ['half a row', {q: [1, 0.5, 2, 8], k: q, v: q}, {}, {}, /expected a shape .* for q, received \[1,0.5,2,8\]/],
  ['rank 3', {q: [4, 2, 8], k: q, v: q}, {}, {}, /expected a shape of rank 4, \[B,Nq,Hq,D\] for q/],
  ['different lengths', {q, k: q, v: [1, 5, 2, 8]}, {}, {}, /expected the length of k, 4/],
  ['a misspelt option', {q, k: q, v: q}, {casual: true}, {}, /for the name of an option, received 'casual'/],
  ['a layout of packed tensors', {qkv: [1, 4, 3, 2, 8]}, {layout: 'bhnd'}, {}, /received 'layout'/],
  ['a mask of other lengths', {q, k: q, v: q}, {mask: [5, 4]}, {}, /expected a shape that broadcasts .* for mask/],
  ['a mask of rank 5', {q, k: q, v: q}, {mask: [1, 1, 1, 4, 4]}, {}, /expected a shape that broadcasts .* for mask/],
  ['offsets that decrease', {q: [4, 2, 8], k: [4, 2, 8], v: [4, 2, 8]}, {cuSeqlensQ: [0, 4, 3]}, {},
    /expected an array of at least 2 integers that never decrease, \[B\+1\] for cuSeqlensQ/],
  ['the gradient of what is not there', {q, k: q, v: q}, {}, {gradients: ['bias']}, /some of q, k, v, for gradients/],
  ['gradients over a cache', {q, kCache: q, vCache: q}, {}, {gradients: true}, /expected false over a cache/],
  ['the gradient of the LSE alone', {q, k: q, v: q}, {}, {lseGradient: true},
    /expected a boolean, true only beside gradients, for lseGradient, received true/],
  ['a text for it', {q, k: q, v: q}, {}, {gradients: true, lseGradient: 'yes'}, /for lseGradient, received 'yes'/],
  ['a misspelt gradients', {q, k: q, v: q}, {}, {gradient: true},
    /expected one of gradients, lseGradient .* received 'gradient'/],
];

describe('prepare', () => {
  beforeAll(() => tf.setBackend('cpu'));

  for (const [what, shapes, options, gradients, call] of CALLS) {
    it(`plans the kernels that the call runs: ${what}`, () => {
      const {kernels} = plannedCall(shapes, options, gradients ?? false);
      expect(planned(kernels)).toEqual(kernelsOf(call));
    });
  }

  it('plans the kernels that the call runs: gradients of output and LSE', () => {
    const {kernels} = plannedCall({q, k: q, v: q}, {}, ['q'], true);
    expect(planned(kernels)).toEqual(kernelsOf(() => tf.grad(x => {
      const {output, lse} = flashAttentionWithLse(x as tf.Tensor4D, zeros(1, 4, 2, 8), zeros(1, 4, 2, 8));
      return tf.add(tf.sum(output), tf.sum(lse));
    })(zeros(1, 4, 2, 8))));
  });

  it('takes tensors for their shapes', () => {
    const x = tf.zeros([1, 4, 2, 8]);
    const bias = tf.zeros([4]);
    expect(planned(plannedCall({q: x, k: x, v: x}, {bias}, true).kernels))
        .toEqual(planned(plannedCall({q, k: q, v: q}, {bias: [4]}, true).kernels));
    tf.dispose([x, bias]);
  });

  it('has nothing to do on a backend that compiles nothing', async () => {
    const before = tf.memory();
    await prepare({q, k: q, v: q}, {causal: true}, {gradients: true});
    expect(tf.memory()).toEqual(before);
  });

  it('tune says that there is nothing to time there, and refuses what prepare does', async () => {
    const before = tf.memory();
    await expectAsync(tune({q, k: q, v: q}, {causal: true}, {gradients: true})).toBeRejectedWithError(
        /^flashAttention: tune times kernels on WebGPU, and the backend 'cpu' has one way .*enableWebGPU/);
    expect(tf.memory()).toEqual(before);
    await expectAsync(tune({q, k: q, v: q}, {}, {gradient: true} as object))
        .toBeRejectedWithError(/expected one of gradients, milliseconds .* option, received 'gradient'/);
    await expectAsync(tune({q, k: q, v: q}, {}, {milliseconds: 0}))
        .toBeRejectedWithError(/expected a number above 0 for milliseconds, received 0/);
    await expectAsync(tune({q, k: q} as CallShapes)).toBeRejectedWithError(/expected shapes of q, k, v/);
  });

  for (const [what, shapes, options, wanted, message] of MALFORMED) {
    it(`refuses ${what}`, async () => {
      await expectAsync(prepare(shapes as CallShapes, options as CallShapeOptions, wanted as PrepareOptions))
          .toBeRejectedWithError(Error, message);
    });
  }
});
