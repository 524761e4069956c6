import * as tf from '@tensorflow/tfjs';

import {applyRotaryAtOffsets, applyRotaryEmbedding} from '../../../src/op/variants/rotary.js';
import type {RotaryOptions} from '../../../src/op/variants/rotary.js';
import {Random} from '../../support/random.js';
import {dot, expectClose, expectInvalid, expectNothingLeft, swapHeadsAndRows, useBackend} from './numbers.js';

const [B, N, H, D, L] = [2, 3, 2, 8, 9];

/** The angle of pair p at a position. */
const angle = (position: number, p: number) => position * 10 ** -p + 0.1;

function tables(half: number, round: (x: number) => number = Math.fround) {
  const of = (f: (x: number) => number) =>
    Array.from({length: L * half}, (_, i) => round(f(angle(Math.floor(i / half), i % half))));
  return {cos: of(Math.cos), sin: of(Math.sin)};
}

interface Rotation {
  readonly half: number;
  readonly interleaved: boolean;
  readonly offsets: readonly number[];
  readonly advancing: boolean;
}

/** By the definition, one pair after the other, in float64; x in the order [B,N,H,D]. */
function reference(x: readonly number[], {half, interleaved, offsets, advancing}: Rotation, sign = 1): number[] {
  const {cos, sin} = tables(half);
  const result = [...x];
  for (let head = 0; head < B * N * H; head++) {
    const position = offsets[Math.floor(head / (N * H))] + (advancing ? Math.floor(head / H) % N : 0);
    for (let p = 0; p < half; p++) {
      const first = head * D + (interleaved ? 2 * p : p);
      const second = head * D + (interleaved ? 2 * p + 1 : p + half);
      const [c, s] = [cos[position * half + p], sign * sin[position * half + p]];
      result[first] = x[first] * c - x[second] * s;
      result[second] = x[first] * s + x[second] * c;
    }
  }
  return result;
}

const random = new Random(1);
const X = Array.from(random.normals(B * N * H * D));
const DY = Array.from(random.normals(B * N * H * D));

function tensors(half: number) {
  const {cos, sin} = tables(half);
  return {x: tf.tensor4d(X, [B, N, H, D]), cos: tf.tensor2d(cos, [L, half]), sin: tf.tensor2d(sin, [L, half])};
}

for (const backend of ['cpu', 'wasm'] as const) {
  describe(`applyRotaryEmbedding on ${backend}`, () => {
    useBackend(backend);

    const offsets: Array<[string, () => NonNullable<RotaryOptions['offsets']>, number[]]> = [
      ['no offset', () => 0, [0, 0]],
      ['one offset', () => 4, [4, 4]],
      ['the last offset there is room for', () => L - N, [L - N, L - N]],
      ['an array', () => [5, 2], [5, 2]],
      ['an array of equal offsets', () => [3, 3], [3, 3]],
      ['an Int32Array', () => Int32Array.of(0, 6), [0, 6]],
      ['a tensor', () => tf.tensor1d([1, 6], 'int32'), [1, 6]],
    ];
    for (const half of [1, 3, 4]) {
      for (const interleaved of [false, true]) {
        for (const [what, make, values] of offsets) {
          for (const advancing of [true, false]) {
            const name = advancing ? 'rotates' : 'at offsets rotates';
            it(`${name} 2·${half} of ${D}, ${interleaved ? 'neighbours' : 'halves'}, ${what}, and back`, () => {
              const rotation = {half, interleaved, offsets: values, advancing};
              const apply = advancing ? applyRotaryEmbedding : applyRotaryAtOffsets;
              expectNothingLeft(() => tf.tidy(() => {
                const {x, cos, sin} = tensors(half);
                const options = {interleaved, offsets: make()};
                const y = apply(x, cos, sin, options);
                expect(y.shape).toEqual(x.shape);
                expectClose(y.dataSync(), reference(X, rotation), 1e-6);
                const gradient = tf.grad((t: tf.Tensor) => apply(t, cos, sin, options))(x, tf.tensor4d(DY, x.shape));
                expectClose(gradient.dataSync(), reference(DY, rotation, -1), 1e-6);
              }) as undefined);
            });
          }
        }
      }
    }

    for (const interleaved of [false, true]) {
      it(`takes heads first, ${interleaved ? 'neighbours' : 'halves'}`, () => {
        expectNothingLeft(() => tf.tidy(() => {
          const {x, cos, sin} = tensors(3);
          const heads = tf.transpose(x, [0, 2, 1, 3]);
          for (const apply of [applyRotaryEmbedding, applyRotaryAtOffsets]) {
            for (const given of [5, [5, 2]]) {
              const expected = apply(x, cos, sin, {interleaved, offsets: given});
              const actual = apply(heads, cos, sin, {interleaved, offsets: given, layout: 'bhnd'});
              expect(actual.shape).toEqual([B, H, N, D]);
              expect(swapHeadsAndRows(Array.from(actual.dataSync()), [B, H, N], D))
                  .toEqual(Array.from(expected.dataSync()));
            }
          }
        }) as undefined);
      });
    }
  });
}

describe('applyRotaryEmbedding', () => {
  useBackend('cpu');

  it('is undone by its gradient, and turns no dot product of rows at the same distance', () => {
    const rotation = {half: 4, interleaved: false, advancing: true};
    const rotated = (x: number[], offset: number) => reference(x, {...rotation, offsets: [offset, offset]});
    // Row 2 of x against row 0 of DY, both moved by the same number of positions.
    const product = (offset: number) =>
      dot(rotated(X, offset).slice(2 * H * D, 2 * H * D + D), rotated(DY, offset).slice(0, D));
    expectClose([product(5)], [product(0)], 1e-6);
    tf.tidy(() => {
      const {x, cos, sin} = tensors(4);
      const back = tf.grad((t: tf.Tensor) => applyRotaryEmbedding(t, cos, sin, {offsets: [5, 1]}))(
          x, applyRotaryEmbedding(x, cos, sin, {offsets: [5, 1]}));
      expectClose(back.dataSync(), X, 1e-6);
    });
  });

  it('passes on what lies behind R bit by bit, and keeps NaN and infinities in their pairs', () => {
    tf.tidy(() => {
      const {x, cos, sin} = tensors(3);
      const values = [...X];
      values[7] = NaN; // behind R
      values[1] = Infinity; // with element 4
      const y = applyRotaryEmbedding(tf.tensor4d(values, x.shape), cos, sin).dataSync();
      const changed = Array.from(y).flatMap((value, i) => Number.isFinite(value) ? [] : [i]);
      expect(changed).toEqual([1, 4, 7]);
      expect(y[6]).toBe(Math.fround(X[6]));
    });
  });

  it('reads a slice of the tables at consecutive positions and gathers at others, also for gradients', async () => {
    const gathers = async (options: RotaryOptions) => {
      const {kernels} = await tf.profile(() => tf.tidy(() => {
        const {x, cos, sin} = tensors(4);
        tf.grad((t: tf.Tensor) => applyRotaryEmbedding(t, cos, sin, options))(x);
      }));
      return kernels.filter(({name}) => name === 'GatherV2').length;
    };
    expect(await gathers({offsets: 2})).toBe(0);
    expect(await gathers({offsets: [2, 2]})).toBe(0);
    expect(await gathers({offsets: [2, 3]})).toBe(2);
  });

  it('works in a tidy of its own under grad, with tables made there, and has the gradient of its gradient', () => {
    expectNothingLeft(() => {
      const x = tf.tensor4d(X, [B, N, H, D]);
      const loss = (t: tf.Tensor) => tf.tidy(() => {
        const {cos, sin} = tensors(4);
        return tf.sum(tf.pow(applyRotaryEmbedding(t, cos, sin, {offsets: [1, 0]}), 3));
      });
      // With y = Rx and g = Rᵀ(3y²), the sum of g² has the gradient Rᵀ(6y∘R·2g) = 12·Rᵀ(y∘Rg).
      const second = tf.grad((t: tf.Tensor) => tf.sum(tf.square(tf.grad(loss)(t))))(x);
      const rotation = {half: 4, interleaved: false, advancing: true, offsets: [1, 0]};
      const y = reference(X, rotation);
      const g = reference(y.map(value => 3 * value * value), rotation, -1);
      const turned = reference(g, rotation);
      expectClose(
          second.dataSync(), reference(y.map((value, i) => 12 * value * turned[i]), rotation, -1), 1e-4);
      return [x, second];
    });
  });

  it('trains through tables that are variables, which count as constants', () => {
    tf.tidy(() => {
      const {x, cos, sin} = tensors(4);
      const weights = tf.variable(x);
      const table = tf.variable(cos);
      const {grads} = tf.variableGrads(
          () => tf.sum(applyRotaryEmbedding(weights, table, sin, {offsets: [0, 2]})) as tf.Scalar, [weights]);
      expect(Object.keys(grads)).toEqual([weights.name]);
      weights.dispose();
      table.dispose();
    });
  });

  it('takes nested arrays, and tensors without rows', () => {
    expectNothingLeft(() => {
      const y = applyRotaryEmbedding([[[[1, 2]]]], [[0]], [[1]]);
      expect(Array.from(y.dataSync())).toEqual([-2, 1]);
      return y;
    });
    tf.tidy(() => {
      const {cos, sin} = tensors(4);
      expect(applyRotaryEmbedding(tf.zeros([2, 0, 2, 8]), cos, sin, {offsets: [9, 0]}).shape).toEqual([2, 0, 2, 8]);
      expect(applyRotaryEmbedding(tf.zeros([0, 3, 2, 8]), cos, sin, {offsets: []}).shape).toEqual([0, 3, 2, 8]);
    });
  });

  describe('refuses', () => {
    const bad: Array<[string, (t: Record<string, tf.Tensor>) => unknown[], string]> = [
      ['no x', ({cos, sin}) => [undefined, cos, sin], 'a tensor or a nested array for x, received undefined'],
      ['an int32 x', ({int, cos, sin}) => [int, cos, sin],
       'a float32 tensor of rank 4, [B,N,H,D] for x, received int32 [2,3,2,8]'],
      ['x of rank 3', ({row, cos, sin}) => [row, cos, sin, {layout: 'bhnd'}],
       'a float32 tensor of rank 4, [B,H,N,D] for x, received float32 [3,2,8]'],
      ['cos of rank 1', ({x, vector, sin}) => [x, vector, sin],
       'a float32 tensor of rank 2, [L,R/2] for cos, received float32 [8]'],
      ['no sin', ({x, cos}) => [x, cos], 'a tensor or a nested array for sin, received undefined'],
      ['cos wider than half of x', ({x, wide}) => [x, wide, wide],
       '[L,R/2] with R from 2 to the head size of x, 8 for cos, received float32 [9,5]'],
      ['cos without columns', ({x, empty}) => [x, empty, empty],
       '[L,R/2] with R from 2 to the head size of x, 8 for cos, received float32 [9,0]'],
      ['sin of another shape', ({x, cos, wide}) => [x, cos, wide],
       'the shape of cos, [9,4] for sin, received float32 [9,5]'],
      ['tables shorter than x', ({x, short}) => [x, short, short],
       '[L,R/2] with a row for each position, at least 3 for cos, received float32 [2,4]'],
      ['an offset beyond the tables', ({x, cos, sin}) => [x, cos, sin, {offsets: 7}],
       'an integer from 0 to 6 for offsets, received 7'],
      ['a negative offset', ({x, cos, sin}) => [x, cos, sin, {offsets: -1}],
       'an integer from 0 to 6 for offsets, received -1'],
      ['half an offset', ({x, cos, sin}) => [x, cos, sin, {offsets: 0.5}],
       'an integer from 0 to 6 for offsets, received 0.5'],
      ['an offset of an array beyond the tables', ({x, cos, sin}) => [x, cos, sin, {offsets: [0, 7]}],
       '2 integers from 0 to 6 for offsets, received [0,7]'],
      ['a negative offset in an array', ({x, cos, sin}) => [x, cos, sin, {offsets: [-1, 0]}],
       '2 integers from 0 to 6 for offsets, received [-1,0]'],
      ['too many offsets', ({x, cos, sin}) => [x, cos, sin, {offsets: [0, 1, 2]}],
       '2 integers from 0 to 6 for offsets, received [0,1,2]'],
      ['a float32 tensor of offsets', ({x, cos, sin, floats}) => [x, cos, sin, {offsets: floats}],
       'an int32 tensor or an array of shape [B] = [2] for offsets, received float32 [2]'],
      ['a tensor of another length', ({x, cos, sin, three}) => [x, cos, sin, {offsets: three}],
       'an int32 tensor or an array of shape [B] = [2] for offsets, received int32 [3]'],
      ['an offset of text', ({x, cos, sin}) => [x, cos, sin, {offsets: '1'}],
       'an int32 tensor or an array of shape [B] = [2] for offsets, received \'1\''],
      ['interleaved as a number', ({x, cos, sin}) => [x, cos, sin, {interleaved: 1}],
       'a boolean for interleaved, received 1'],
      ['another layout', ({x, cos, sin}) => [x, cos, sin, {layout: 'thd'}],
       'one of \'bnhd\', \'bhnd\' for layout, received \'thd\''],
      ['another option', ({x, cos, sin}) => [x, cos, sin, {seqlenOffsets: 1}],
       'one of interleaved, layout, offsets for the name of an option, received \'seqlenOffsets\''],
    ];
    for (const [what, args, message] of bad) {
      it(what, () => {
        const given = {
          ...tensors(4), int: tf.ones([2, 3, 2, 8], 'int32'), row: tf.ones([3, 2, 8]), vector: tf.ones([8]),
          wide: tf.ones([9, 5]), empty: tf.ones([9, 0]), short: tf.ones([2, 4]), floats: tf.ones([2]),
          three: tf.ones([3], 'int32'),
        };
        expectInvalid(() => (applyRotaryEmbedding as (...all: unknown[]) => unknown)(...args(given)), message);
        tf.dispose(given);
      });
    }

    it('a disposed tensor', () => {
      const {x, cos, sin} = tensors(4);
      sin.dispose();
      expectInvalid(() => applyRotaryEmbedding(x, cos, sin),
          'a tensor that is not disposed for sin, received a disposed tensor');
      tf.dispose([x, cos]);
    });

    it('at offsets, only offsets beyond the tables', () => {
      const {x, cos, sin} = tensors(4);
      tf.dispose(applyRotaryAtOffsets(x, cos, sin, {offsets: [8, 0]}));
      expectInvalid(() => applyRotaryAtOffsets(x, cos, sin, {offsets: [9, 0]}),
          '2 integers from 0 to 8 for offsets, received [9,0]');
      tf.dispose([x, cos, sin]);
    });
  });
});
