import * as tf from '@tensorflow/tfjs';

import {padInput, unpadInput} from '../../../src/op/variants/padding.js';
import {expectInvalid, expectNothingLeft, useBackend} from './numbers.js';

type Mask = boolean[][];

/** What each function does, with plain arrays of rows. */
function keptRows(mask: Mask): {indices: number[], cuSeqlens: number[], maxSeqlen: number} {
  const length = mask[0]?.length ?? 0;
  const indices = mask.flatMap((row, b) => row.flatMap((keep, n) => keep ? [b * length + n] : []));
  const lengths = mask.map(row => row.filter(Boolean).length);
  const cuSeqlens = lengths.reduce((ends, count) => [...ends, ends[ends.length - 1] + count], [0]);
  return {indices, cuSeqlens, maxSeqlen: Math.max(0, ...lengths)};
}

const rowsAt = (values: ArrayLike<number>, indices: readonly number[], size: number) =>
  indices.flatMap(row => Array.from(values).slice(row * size, (row + 1) * size));

function placed(values: ArrayLike<number>, indices: readonly number[], total: number, size: number): number[] {
  const result = new Array<number>(total * size).fill(0);
  Array.from(values).forEach((value, i) => {
    result[indices[Math.floor(i / size)] * size + i % size] = value;
  });
  return result;
}

const range = (count: number, first = 1) => Array.from({length: count}, (_, i) => first + i / 8);

const MASKS: Record<string, Mask> = {
  'padded on the right': [[true, true, true, false], [true, false, false, false], [true, true, true, true]],
  'padded on the left': [[false, true, true, true], [false, false, false, true], [false, false, true, true]],
  'with holes': [[true, false, true, false], [false, true, true, false], [true, false, false, true]],
  'with an empty row': [[true, false, true, true], [false, false, false, false], [false, true, false, false]],
  full: [[true, true], [true, true]],
  empty: [[false, false], [false, false]],
  'of one row': [[false, true, true]],
};

for (const backend of ['cpu', 'wasm'] as const) {
  describe(`unpadInput and padInput on ${backend}`, () => {
    useBackend(backend);

    for (const [what, mask] of Object.entries(MASKS)) {
      for (const rest of [[], [3], [2, 3]]) {
        it(`move rows [${rest}] exactly, forward and backward, with a mask ${what}`, () => {
          const [batch, length] = [mask.length, mask[0].length];
          const size = rest.reduce((a, b) => a * b, 1);
          const total = batch * length;
          const expected = keptRows(mask);
          const count = expected.indices.length;
          const values = range(total * size);
          expectNothingLeft(() => tf.tidy(() => {
            const x = tf.tensor(values, [batch, length, ...rest]);
            const packed = unpadInput(x, mask);
            expect(packed.x.shape).toEqual([count, ...rest]);
            expect(packed.x.dtype).toBe('float32');
            expect(Array.from(packed.x.dataSync())).toEqual(rowsAt(values, expected.indices, size));
            expect(packed.indices).toEqual(Int32Array.from(expected.indices));
            expect(packed.cuSeqlens).toEqual(Int32Array.from(expected.cuSeqlens));
            expect(packed.maxSeqlen).toBe(expected.maxSeqlen);

            const again = padInput(packed.x, packed.indices, batch, length);
            expect(again.shape).toEqual(x.shape);
            const masked = placed(packed.x.dataSync(), expected.indices, total, size);
            expect(Array.from(again.dataSync())).toEqual(masked);

            const dRows = range(count * size, 20);
            const dUnpadded = tf.grad((t: tf.Tensor) => unpadInput(t, mask).x)(x, tf.tensor(dRows, [count, ...rest]));
            expect(dUnpadded.shape).toEqual(x.shape);
            expect(Array.from(dUnpadded.dataSync())).toEqual(placed(dRows, expected.indices, total, size));
            const dPadded = tf.grad((t: tf.Tensor) => padInput(t, packed.indices, batch, length))(packed.x, x);
            expect(dPadded.shape).toEqual(packed.x.shape);
            expect(Array.from(dPadded.dataSync())).toEqual(rowsAt(values, expected.indices, size));
          }) as undefined);
        });
      }
    }

    it('move NaN, infinities and integers', () => {
      tf.tidy(() => {
        const mask = MASKS['with holes'];
        const values = Array.from({length: 12}, (_, i) => [NaN, Infinity, -Infinity][i % 3]);
        const {x, indices} = unpadInput(tf.tensor(values, [3, 4]), mask);
        expect(Array.from(x.dataSync())).toEqual(rowsAt(values, Array.from(indices), 1));
        expect(Array.from(padInput(x, indices, 3, 4).dataSync()))
            .toEqual(placed(x.dataSync(), Array.from(indices), 12, 1));
        const ids = tf.tensor([1, 2, 3, 2 ** 24 - 1], [1, 4], 'int32');
        const packed = unpadInput(ids, [[false, true, false, true]]);
        expect(packed.x.dtype).toBe('int32');
        expect(Array.from(packed.x.dataSync())).toEqual([2, 2 ** 24 - 1]);
        const padded = padInput(packed.x, packed.indices, 1, 4);
        expect(padded.dtype).toBe('int32');
        expect(Array.from(padded.dataSync())).toEqual([0, 2, 0, 2 ** 24 - 1]);
      });
    });

    it('take a mask as booleans, numbers, typed arrays, and bool or int32 tensors', () => {
      const numbers = MASKS['with holes'].map(row => row.map(Number));
      const indices = Int32Array.from(keptRows(MASKS['with holes']).indices);
      expectNothingLeft(() => tf.tidy(() => {
        const x = tf.ones([3, 4, 2]);
        for (const mask of [
          numbers, numbers.map(row => Uint8Array.from(row)), tf.tensor2d(numbers, [3, 4], 'bool'),
          tf.tensor2d(numbers, [3, 4], 'int32'),
        ]) {
          expect(unpadInput(x, mask as tf.TensorLike).indices).toEqual(indices);
        }
      }) as undefined);
    });

    it('take empty batches, sequences and rows', () => {
      tf.tidy(() => {
        const noBatch = unpadInput(tf.zeros([0, 3, 2]), []);
        expect([noBatch.x.shape, Array.from(noBatch.cuSeqlens), noBatch.maxSeqlen]).toEqual([[0, 2], [0], 0]);
        expect(padInput(noBatch.x, noBatch.indices, 0, 3).shape).toEqual([0, 3, 2]);
        const noLength = unpadInput(tf.zeros([2, 0, 2]), [[], []]);
        expect([noLength.x.shape, Array.from(noLength.cuSeqlens)]).toEqual([[0, 2], [0, 0, 0]]);
        expect(padInput(noLength.x, noLength.indices, 2, 0).shape).toEqual([2, 0, 2]);
        const noSize = unpadInput(tf.zeros([1, 2, 0]), [[true, false]]);
        expect(noSize.x.shape).toEqual([1, 0]);
        expect(padInput(noSize.x, noSize.indices, 1, 2).shape).toEqual([1, 2, 0]);
      });
    });

    it('leave nothing behind but the tensor', () => {
      const x = tf.ones([3, 4, 2]);
      for (const mask of [MASKS['with holes'], MASKS['padded on the left']]) {
        expectNothingLeft(() => {
          const before = tf.memory().numTensors;
          const packed = unpadInput(x, mask);
          expect(tf.memory().numTensors).toBe(before + 1);
          const padded = padInput(packed.x, packed.indices, 3, 4);
          expect(tf.memory().numTensors).toBe(before + 2);
          return [packed.x, padded];
        });
        expectNothingLeft(() => tf.grad((t: tf.Tensor) => {
          const packed = unpadInput(t, mask);
          return padInput(tf.square(packed.x), packed.indices, 3, 4);
        })(x));
      }
      x.dispose();
    });
  });
}

describe('unpadInput and padInput', () => {
  useBackend('cpu');

  it('have the gradient of their gradient', () => {
    tf.tidy(() => {
      const mask = [[true, false, true]];
      const x = tf.tensor2d([1, 2, 3], [1, 3]);
      const first = (t: tf.Tensor) => tf.grad((s: tf.Tensor) => {
        const packed = unpadInput(s, mask);
        return tf.pow(padInput(packed.x, packed.indices, 1, 3), 3);
      })(t);
      expect(Array.from(first(x).dataSync())).toEqual([3, 0, 27]);
      expect(Array.from(tf.grad(first)(x).dataSync())).toEqual([6, 0, 18]);
    });
  });

  it('put rows in any order, and take nested arrays', () => {
    tf.tidy(() => {
      expect(Array.from(padInput([[1, 2], [3, 4]], [3, 0], 2, 2).dataSync())).toEqual([3, 4, 0, 0, 0, 0, 1, 2]);
      expect(Array.from(unpadInput([[1, 2], [3, 4]], [[false, true], [true, false]]).x.dataSync())).toEqual([2, 3]);
    });
  });

  const given = () => ({
    x: tf.ones([2, 3, 4]), rows: tf.ones([3, 4]), bool: tf.ones([2, 3], 'bool'), vector: tf.ones([3]),
    scalar: tf.scalar(1), other: tf.ones([3, 2], 'bool'), floats: tf.ones([2, 3]),
  });
  const mask = [[1, 0, 1], [0, 0, 1]];
  const badUnpad: Array<[string, (t: Record<string, tf.Tensor>) => unknown[], string]> = [
    ['no x', () => [undefined, mask], 'a tensor or a nested array for x, received undefined'],
    ['x of rank 1', ({vector}) => [vector, mask], 'a float32 or int32 tensor [B,N,...] for x, received float32 [3]'],
    ['a bool x', ({bool}) => [bool, mask], 'a float32 or int32 tensor [B,N,...] for x, received bool [2,3]'],
    ['no mask', ({x}) => [x],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received undefined'],
    ['a mask of another batch', ({x}) => [x, [[1, 1, 1]]],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received [[1,1,1]]'],
    ['a mask of another length', ({x}) => [x, [[1, 1, 1], [1, 1]]],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received [[1,1,1],[1,1]]'],
    ['a flat mask', ({x}) => [x, [1, 1]],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received [1,1]'],
    ['a mask of text', ({x}) => [x, ['abc', 'abc']],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received [\'abc\',\'abc\']'],
    ['a mask tensor of another shape', ({x, other}) => [x, other],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received bool [3,2]'],
    ['a mask tensor of float32', ({x, floats}) => [x, floats],
     'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received float32 [2,3]'],
    ['a mask with lengths', ({x}) => [x, [[1, 2, 0], [0, 0, 0]]],
     'booleans, or 1 and 0, for the values of mask, received 2'],
    ['a mask with gaps', ({x}) => [x, [[1, 1, undefined], [0, 0, 0]]],
     'booleans, or 1 and 0, for the values of mask, received undefined'],
  ];
  for (const [what, args, message] of badUnpad) {
    it(`unpadInput refuses ${what}`, () => {
      const tensors = given();
      expectInvalid(() => (unpadInput as (...all: unknown[]) => unknown)(...args(tensors)), message);
      tf.dispose(tensors);
    });
  }

  it('unpadInput refuses a disposed x and a disposed mask', () => {
    const {x, bool, ...rest} = given();
    bool.dispose();
    expectInvalid(() => unpadInput(x, bool),
        'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask, received a disposed tensor');
    x.dispose();
    expectInvalid(() => unpadInput(x, mask), 'a tensor that is not disposed for x, received a disposed tensor');
    tf.dispose(rest);
  });

  it('unpadInput says what to do with a mask that cannot be read, and why it could not', () => {
    const {x, bool, ...rest} = given();
    const reason = new Error('OffscreenCanvas is not defined');
    spyOn(bool, 'dataSync').and.throwError(reason);
    expectInvalid(() => unpadInput(x, bool),
        'a mask that can be read on the host, such as an array (pass `await mask.array()`), for mask, ' +
        'received bool [2,3]');
    try {
      unpadInput(x, bool);
    } catch (error) {
      expect((error as Error).cause).toBe(reason);
    }
    tf.dispose([x, bool, rest]);
  });

  const badPad: Array<[string, (t: Record<string, tf.Tensor>) => unknown[], string]> = [
    ['no x', () => [undefined, [0], 1, 1], 'a tensor or a nested array for x, received undefined'],
    ['a scalar', ({scalar}) => [scalar, [0], 1, 1],
     'a float32 or int32 tensor [T,...] for x, received float32 []'],
    ['a bool x', ({bool}) => [bool, [0, 1], 1, 3], 'a float32 or int32 tensor [T,...] for x, received bool [2,3]'],
    ['no indices', ({rows}) => [rows, undefined, 2, 3],
     'an array of 3 integers, one for each row of x, for indices, received undefined'],
    ['too few indices', ({rows}) => [rows, Int32Array.of(0, 1), 2, 3],
     'an array of 3 integers, one for each row of x, for indices, received Int32Array'],
    ['an index beyond the rows', ({rows}) => [rows, [0, 1, 6], 2, 3],
     'different integers from 0 to B·N − 1 = 5 for indices, received 6'],
    ['a negative index', ({rows}) => [rows, [0, -1, 2], 2, 3],
     'different integers from 0 to B·N − 1 = 5 for indices, received -1'],
    ['half an index', ({rows}) => [rows, [0, 0.5, 2], 2, 3],
     'different integers from 0 to B·N − 1 = 5 for indices, received 0.5'],
    ['an index given twice', ({rows}) => [rows, [0, 2, 2], 2, 3],
     'different integers from 0 to B·N − 1 = 5 for indices, received [0,2,2]'],
    ['no batch', ({rows}) => [rows, [0, 1, 2]], 'an integer of at least 0 for batch, received undefined'],
    ['a negative length', ({rows}) => [rows, [0, 1, 2], 2, -3],
     'an integer of at least 0 for length, received -3'],
  ];
  for (const [what, args, message] of badPad) {
    it(`padInput refuses ${what}`, () => {
      const tensors = given();
      expectInvalid(() => (padInput as (...all: unknown[]) => unknown)(...args(tensors)), message);
      tf.dispose(tensors);
    });
  }
});
