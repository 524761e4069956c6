import * as tf from '@tensorflow/tfjs';

import {flashAttention, flashAttentionWithLse} from '../../src/index.js';

/** `tf.grad` for functions of a tensor of known rank. */
const grad = tf.grad as unknown as (f: (x: tf.Tensor4D) => tf.Tensor) => (x: tf.Tensor) => tf.Tensor4D;

interface Attrs {
  wanted: string[];
  inputNames: string[];
  forGradient: boolean;
}

/** Runs `f` and gives the attributes of each call of the kernel. */
function attrsOf(kernelName: string, f: () => void): Attrs[] {
  const kernel = tf.getKernel(kernelName, tf.getBackend());
  const calls: Attrs[] = [];
  tf.unregisterKernel(kernelName, tf.getBackend());
  tf.registerKernel({
    ...kernel,
    kernelFunc: params => {
      calls.push((params as unknown as {attrs: Attrs}).attrs);
      return kernel.kernelFunc(params);
    },
  });
  try {
    f();
  } finally {
    tf.unregisterKernel(kernelName, tf.getBackend());
    tf.registerKernel(kernel);
  }
  return calls;
}

/** What each call of the gradient kernel was asked for. */
const gradientCalls = (f: () => void) =>
  attrsOf('FlashAttentionGrad', f).map(({wanted, inputNames}) => ({wanted, inputNames}));

describe('the gradient', () => {
  let q: tf.Tensor4D;
  let k: tf.Tensor4D;
  let v: tf.Tensor4D;

  beforeAll(async () => {
    await tf.setBackend('cpu');
    q = tf.randomNormal([1, 5, 2, 4]);
    k = tf.randomNormal([1, 6, 2, 4]);
    v = tf.randomNormal([1, 6, 2, 3]);
    // Registers the kernels on this backend.
    tf.dispose(grad((x: tf.Tensor4D) => flashAttention(x, k, v))(q));
  });

  afterAll(() => tf.dispose([q, k, v]));

  it('is computed in one kernel call for all three inputs', () => {
    const calls = gradientCalls(() => tf.tidy(() => tf.grads((a, b, c) => flashAttention(a, b, c))([q, k, v])));
    expect(calls.map(({wanted}) => wanted)).toEqual([['q', 'k', 'v']]);
  });

  for (const name of ['q', 'k', 'v'] as const) {
    it(`is computed for ${name} alone when only that is asked for`, () => {
      const inputs = {q, k, v};
      const calls = gradientCalls(() => tf.tidy(() => {
        tf.grad((x: tf.Tensor) => {
          const given = {...inputs, [name]: x};
          return flashAttention(given.q, given.k, given.v);
        })(inputs[name]);
      }));
      expect(calls.map(({wanted}) => wanted)).toEqual([[name]]);
    });
  }

  it('leaves out the gradient of an LSE that nothing used', () => {
    const used = gradientCalls(() => tf.tidy(() => {
      grad((x: tf.Tensor4D) => tf.sum(flashAttentionWithLse(x, k, v).lse))(q);
      grad((x: tf.Tensor4D) => tf.sum(flashAttentionWithLse(x, k, v).output))(q);
    }));
    expect(used.map(({inputNames}) => inputNames.includes('dLse'))).toEqual([true, false]);
  });

  it('adds up when one tensor is q, k and v', () => {
    tf.tidy(() => {
      const x = tf.randomNormal<tf.Rank.R4>([1, 5, 1, 4]);
      const all = grad((t: tf.Tensor4D) => flashAttention(t, t, t))(x);
      const parts = tf.grads((a, b, c) => flashAttention(a, b, c))([x, x.clone(), x.clone()]);
      expect(tf.max(tf.abs(tf.sub(all, tf.addN(parts)))).dataSync()[0]).toBeLessThan(1e-6);
    });
  });

  it('flows through kernels that are run by name, without the op', () => {
    tf.tidy(() => {
      const attrs = {
        layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: 0, softmaxScale: 0.5, softcap: 0,
        dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true, inputNames: ['q', 'k', 'v'],
      };
      const byName = tf.grads((a, b, c) => {
        const inputs = [a, b, c] as unknown as tf.NamedTensorMap;
        return (tf.engine().runKernel('FlashAttention', inputs, attrs) as tf.Tensor[])[0];
      })([q, k, v]);
      const byOp = tf.grads((a, b, c) => flashAttention(a, b, c, {causal: true, softmaxScale: 0.5}))([q, k, v]);
      byName.forEach((gradient, n) => {
        expect(gradient.dataSync()).toEqual(byOp[n].dataSync());
      });
    });
  });

  it('passes by a mask that was made from a differentiated input', () => {
    tf.tidy(() => {
      const gradient = tf.grad((x: tf.Tensor) => {
        const mask = tf.cast(tf.slice(x.reshape([-1]), 0, 6), 'bool').reshape([1, 1, 1, 6]);
        return flashAttention(x as tf.Tensor4D, k, v, {mask});
      })(q);
      const plain = grad((x: tf.Tensor4D) => flashAttention(x, k, v))(q);
      expect(gradient.dataSync()).toEqual(plain.dataSync());
    });
  });

  it('is prepared for where tfjs records the call, and nowhere else', () => {
    const both = () => tf.tidy(() => {
      flashAttention(q, k, v);
      grad(x => flashAttention(x, k, v))(q);
    });
    expect(attrsOf('FlashAttention', both).map(({forGradient}) => forGradient)).toEqual([false, true]);
    expect(attrsOf('FlashAttentionGrad', both).map(({forGradient}) => forGradient)).toEqual([true]);
  });

  it('of the gradient is refused, not wrong', () => {
    expect(() => tf.tidy(() => tf.grad((x: tf.Tensor) =>
        grad((y: tf.Tensor4D) => flashAttention(y, k, v))(x as tf.Tensor4D))(q)))
        .toThrowError('flashAttention: the gradient of its gradient is not implemented');
    // tfjs leaves its tape open when a gradient throws; close it for the specs that follow.
    tf.engine().state.gradientDepth = 0;
  });

  it('trains variables through variableGrads and an optimizer', () => {
    const weights = tf.variable(tf.randomNormal<tf.Rank.R4>([1, 6, 2, 4], 0, 1, 'float32', 1));
    const target = tf.randomNormal<tf.Rank.R4>([1, 5, 2, 3], 0, 0.1, 'float32', 2);
    const optimizer = tf.train.adam(0.05);
    const loss = () => tf.losses.meanSquaredError(target, flashAttention(q, weights, v)) as tf.Scalar;
    const first = tf.tidy(() => loss().dataSync()[0]);
    tf.tidy(() => {
      const {grads} = tf.variableGrads(loss);
      expect(Object.keys(grads)).toEqual([weights.name]);
    });
    optimizer.minimize(loss); // makes Adam's own variables
    const before = tf.memory().numTensors;
    for (let step = 1; step < 30; step++) {
      optimizer.minimize(loss);
    }
    expect(tf.memory().numTensors).toBe(before);
    expect(tf.tidy(() => loss().dataSync()[0])).toBeLessThan(first * 0.9);
    optimizer.dispose();
    weights.dispose();
    target.dispose();
  });

  it('leaves nothing behind: forward, backward, after errors', () => {
    const before = tf.memory();
    for (let n = 0; n < 3; n++) {
      tf.dispose(flashAttention(q, k, v));
      tf.dispose(flashAttentionWithLse(q, k, v) as unknown as tf.TensorContainer);
      tf.dispose(tf.grads((a, b, c) => flashAttention(a, b, c, {dropoutP: 0.3}))([q, k, v]));
      expect(() => flashAttention(q, v, k)).toThrowError(/expected/);
      expect(() => grad((x: tf.Tensor4D) => flashAttention(x, v, k))(q)).toThrowError(/expected/);
    }
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(tf.memory().numBytes).toBe(before.numBytes);
    expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
  });

  it('is seen by tf.profile, bytes and all', async () => {
    const profile = await tf.profile(() => tf.tidy(() => tf.grads((a, b, c) => flashAttention(a, b, c))([q, k, v])));
    const forward = profile.kernels.find(({name}) => name === 'FlashAttention')!;
    const backward = profile.kernels.find(({name}) => name === 'FlashAttentionGrad')!;
    expect(forward.outputShapes).toEqual([[1, 5, 2, 3], [1, 2, 5], [1, 2, 5]]);
    expect(forward.bytesAdded).toBeGreaterThanOrEqual(4 * (5 * 2 * 3 + 2 * 2 * 5));
    expect(backward.outputShapes).toEqual([q.shape, k.shape, v.shape]);
    expect(await backward.kernelTimeMs as number).toBeGreaterThan(0);
  });
});
