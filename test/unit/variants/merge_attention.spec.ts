import * as tf from '@tensorflow/tfjs';

import {mergeAttention} from '../../../src/op/variants/merge_attention.js';
import type {AttentionPart} from '../../../src/op/variants/merge_attention.js';
import {Random} from '../../support/random.js';
import {
  dot, expectClose, expectInvalid, expectNothingLeft, numericGradient, swapHeadsAndRows, useBackend,
} from './numbers.js';

type Layout = 'bnhd'|'bhnd'|'thd';

/** Parts as numbers, in the order [B,H,N] of their rows. */
interface Numbers {
  readonly outputs: number[][];
  readonly lses: number[][];
}

const [B, N, H, DV] = [2, 3, 2, 4];
const ROWS = B * N * H;

/** The result by its definition, in float64. */
function reference({outputs, lses}: Numbers, size = DV): {output: number[], lse: number[]} {
  const lse = lses[0].map((_, row) => {
    const highest = Math.max(...lses.map(values => values[row]));
    return Number.isFinite(highest) ?
      highest + Math.log(lses.reduce((total, values) => total + Math.exp(values[row] - highest), 0)) : highest;
  });
  const share = (s: number, row: number) => lse[row] === -Infinity ? 0 : Math.exp(lses[s][row] - lse[row]);
  const output = outputs[0].map((_, place) =>
    outputs.reduce((total, values, s) => total + share(s, Math.floor(place / size)) * values[place], 0));
  return {output, lse};
}

function randomParts(count: number, seed: number, scale = 2): Numbers {
  const random = new Random(seed);
  const normals = (length: number) => Array.from(random.normals(length, scale));
  return {
    outputs: Array.from({length: count}, () => normals(ROWS * DV)),
    lses: Array.from({length: count}, () => normals(ROWS)),
  };
}

/** A batch of 1 with B·N rows for `thd`. */
const axes = (layout: Layout): [number, number, number] => layout === 'thd' ? [1, H, B * N] : [B, H, N];

function outputTensor(values: readonly number[], layout: Layout): tf.Tensor {
  const [batch, heads, rows] = axes(layout);
  if (layout === 'bhnd') {
    return tf.tensor(values as number[], [batch, heads, rows, DV]);
  }
  const swapped = swapHeadsAndRows(values, [batch, heads, rows], DV);
  return tf.tensor(swapped, layout === 'thd' ? [rows, heads, DV] : [batch, rows, heads, DV]);
}

const lseTensor = (values: readonly number[], layout: Layout): tf.Tensor =>
  tf.tensor(values as number[], layout === 'thd' ? axes(layout).slice(1) : axes(layout));

/** The values of an output in the order [B,H,N,Dv]. */
function outputValues(output: tf.Tensor, layout: Layout): ArrayLike<number> {
  const [batch, heads, rows] = axes(layout);
  const values = Array.from(output.dataSync());
  return layout === 'bhnd' ? values : swapHeadsAndRows(values, [batch, rows, heads], DV);
}

const optionsOf = (layout: Layout) => layout === 'thd' ? {} : {layout};

function tensorsOf({outputs, lses}: Numbers, layout: Layout): AttentionPart[] {
  return outputs.map((output, s) => ({output: outputTensor(output, layout), lse: lseTensor(lses[s], layout)}));
}

/** Gradients of Σ dOutput∘output + Σ dLse∘lse, in the order [B,H,N,…]. */
function gradients(
    parts: Numbers, dOutput: readonly number[], dLse: readonly number[], layout: Layout): Numbers {
  const count = parts.outputs.length;
  const tensors = tensorsOf(parts, layout);
  const wanted = tf.grads((...args) => {
    const merged = mergeAttention(
        tensors.map((_, s) => ({output: args[s], lse: args[count + s]})), optionsOf(layout));
    return tf.add(
        tf.sum(tf.mul(merged.output, outputTensor(dOutput, layout))),
        tf.sum(tf.where(tf.isFinite(merged.lse), tf.mul(merged.lse, lseTensor(dLse, layout)), 0)));
  })([...tensors.map(({output}) => output), ...tensors.map(({lse}) => lse)]);
  return {
    outputs: wanted.slice(0, count).map(gradient => Array.from(outputValues(gradient, layout))),
    lses: wanted.slice(count).map(gradient => Array.from(gradient.dataSync())),
  };
}

/** The same by differences of the reference in float64. */
function numericGradients(parts: Numbers, dOutput: readonly number[], dLse: readonly number[]): Numbers {
  const loss = (changed: Numbers) => {
    const {output, lse} = reference(changed);
    return dot(dOutput, output) + dot(dLse, lse.map(value => Number.isFinite(value) ? value : 0));
  };
  const replaced = (values: number[][], s: number, x: readonly number[]) =>
    values.map((old, i) => i === s ? [...x] : old);
  return {
    outputs: parts.outputs.map((values, s) =>
      numericGradient(x => loss({...parts, outputs: replaced(parts.outputs, s, x)}), values)),
    lses: parts.lses.map((values, s) =>
      numericGradient(x => loss({...parts, lses: replaced(parts.lses, s, x)}), values)),
  };
}

/** Empties rows as attention does: row 0 in part 0, row 1 in all parts. */
function withEmptyRows({outputs, lses}: Numbers): Numbers {
  const isEmpty = (s: number, row: number) => row === 1 || (row === 0 && s === 0);
  return {
    outputs: outputs.map((values, s) => values.map((value, i) => isEmpty(s, Math.floor(i / DV)) ? 0 : value)),
    lses: lses.map((values, s) => values.map((value, row) => isEmpty(s, row) ? -Infinity : value)),
  };
}

for (const backend of ['cpu', 'wasm'] as const) {
  describe(`mergeAttention on ${backend}`, () => {
    useBackend(backend);

    for (const layout of ['bnhd', 'bhnd', 'thd'] as const) {
      for (const count of [1, 2, 4]) {
        it(`joins ${count} parts in layout ${layout}, forward and backward`, () => {
          const parts = withEmptyRows(randomParts(count, 10 + count));
          const expected = reference(parts);
          const random = new Random(3);
          const dOutput = Array.from(random.normals(ROWS * DV));
          const dLse = Array.from(random.normals(ROWS));
          expectNothingLeft(() => tf.tidy(() => {
            const tensors = tensorsOf(parts, layout);
            const merged = mergeAttention(tensors, optionsOf(layout));
            expect(merged.output.shape).toEqual(tensors[0].output.shape);
            expect(merged.lse.shape).toEqual(tensors[0].lse.shape);
            expectClose(outputValues(merged.output, layout), expected.output);
            expectClose(merged.lse.dataSync(), expected.lse);
            const actual = gradients(parts, dOutput, dLse, layout);
            const numeric = numericGradients(parts, dOutput, dLse);
            for (let s = 0; s < count; s++) {
              expectClose(actual.outputs[s], numeric.outputs[s], 1e-4);
              expectClose(actual.lses[s], numeric.lses[s], 1e-4);
            }
          }) as undefined);
        });
      }
    }

    it('gives 0 and −∞ and gradients of exactly 0 where every part is empty', () => {
      tf.tidy(() => {
        const parts = withEmptyRows(randomParts(2, 1));
        const merged = mergeAttention(tensorsOf(parts, 'bhnd'), {layout: 'bhnd'});
        expect(Array.from(merged.output.dataSync().slice(DV, 2 * DV))).toEqual([0, 0, 0, 0]);
        expect(merged.lse.dataSync()[1]).toBe(-Infinity);
        // A gradient of NaN from above: only the parts that are there take it up.
        const nan = new Array<number>(ROWS).fill(NaN);
        const {lses} = gradients(parts, parts.outputs[0], nan, 'bhnd');
        expect(lses.map(values => Math.abs(values[1]))).toEqual([0, 0]);
        expect(Math.abs(lses[0][0])).toBe(0);
        expect(lses[1][0]).toBeNaN();
      });
    });

    it('does not overflow, and keeps the weights of LSEs that have few digits after the point', () => {
      tf.tidy(() => {
        const parts = randomParts(3, 5);
        const shifted = {...parts, lses: parts.lses.map((values, s) => values.map((value, row) =>
          [30000, -30000, 3e38][row % 3] + Math.fround(row % 3 === 2 ? s * 1e37 : Math.round(value * 64) / 64)))};
        const rounded = {...shifted, lses: shifted.lses.map(values => values.map(Math.fround))};
        const expected = reference(rounded);
        const merged = mergeAttention(tensorsOf(rounded, 'bhnd'), {layout: 'bhnd'});
        expectClose(merged.output.dataSync(), expected.output, 1e-5);
        expectClose(merged.lse.dataSync(), expected.lse, 1e-6);
      });
    });

    it('lets NaN reach its own row only, whether in an output or in an LSE', () => {
      tf.tidy(() => {
        const parts = withEmptyRows(randomParts(2, 6));
        parts.outputs[1][2 * DV + 1] = NaN; // row 2, one element
        parts.lses[0][4] = NaN;             // row 4
        const expected = reference(withEmptyRows(randomParts(2, 6)));
        expected.output[2 * DV + 1] = NaN;
        expected.output.fill(NaN, 4 * DV, 5 * DV);
        expected.lse[4] = NaN;
        const merged = mergeAttention(tensorsOf(parts, 'bhnd'), {layout: 'bhnd'});
        expectClose(merged.output.dataSync(), expected.output);
        expectClose(merged.lse.dataSync(), expected.lse);
        const ones = new Array<number>(ROWS * DV).fill(1);
        const {outputs, lses} = gradients(parts, ones, ones.slice(0, ROWS), 'bhnd');
        for (const s of [0, 1]) {
          const rowsWithNaN = lses[s].flatMap((value, row) => Number.isNaN(value) ? [row] : []);
          expect(rowsWithNaN).toEqual([2, 4]);
          const inOutputs = new Set(outputs[s].flatMap((value, i) => Number.isNaN(value) ? [Math.floor(i / DV)] : []));
          expect([...inOutputs]).toEqual([4]);
        }
      });
    });

    it('gives a row to its parts of +∞, in equal shares', () => {
      tf.tidy(() => {
        const parts = randomParts(3, 7);
        parts.lses[1][0] = Infinity;
        parts.lses[0][1] = Infinity;
        parts.lses[2][1] = Infinity;
        parts.lses[1][1] = -Infinity;
        const expected = reference(parts);
        for (let e = 0; e < DV; e++) {
          expected.output[e] = parts.outputs[1][e];
          expected.output[DV + e] = (parts.outputs[0][DV + e] + parts.outputs[2][DV + e]) / 2;
        }
        const merged = mergeAttention(tensorsOf(parts, 'bhnd'), {layout: 'bhnd'});
        expectClose(merged.output.dataSync(), expected.output);
        expectClose(merged.lse.dataSync(), expected.lse);
        expect(Array.from(merged.lse.dataSync().slice(0, 2))).toEqual([Infinity, Infinity]);
        const {lses} = gradients(parts, parts.outputs[0], parts.outputs[1].slice(0, ROWS), 'bhnd');
        expect(lses.flat().every(Number.isFinite)).toBeTrue();
      });
    });

    it('leaves nothing behind but its two results', () => {
      const parts = tensorsOf(randomParts(3, 2), 'bnhd');
      expectNothingLeft(() => {
        const before = tf.memory().numTensors;
        const merged = mergeAttention(parts);
        expect(tf.memory().numTensors).toBe(before + 2);
        return [merged.output, merged.lse];
      });
      expectNothingLeft(() => tf.grads((output, lse) => tf.add(
          tf.sum(mergeAttention([{output, lse}, parts[1]]).output), tf.sum(mergeAttention([{output, lse}]).lse)))(
          [parts[0].output, parts[0].lse]));
      parts.forEach(({output, lse}) => tf.dispose([output, lse]));
    });

    it('takes tensors without rows', () => {
      tf.tidy(() => {
        const part = {output: tf.zeros([2, 0, 3, 4]), lse: tf.zeros([2, 3, 0])};
        const merged = mergeAttention([part, part]);
        expect(merged.output.shape).toEqual([2, 0, 3, 4]);
        expect(merged.lse.shape).toEqual([2, 3, 0]);
      });
    });
  });
}

describe('mergeAttention', () => {
  useBackend('cpu');

  it('of attention over disjoint keys is attention over all of them', () => {
    const random = new Random(9);
    const [keys, size] = [7, 3];
    const scores = Array.from(random.normals(keys, 3));
    const values = Array.from({length: keys}, () => Array.from(random.normals(size)));
    const attention = (from: number, to: number) => {
      const lse = Math.log(scores.slice(from, to).reduce((total, score) => total + Math.exp(score), 0));
      const output = values[0].map((_, e) =>
        dot(scores.slice(from, to).map(score => Math.exp(score - lse)), values.slice(from, to).map(row => row[e])));
      return {output, lse};
    };
    tf.tidy(() => {
      const merged = mergeAttention([[0, 2], [2, 3], [3, 7]].map(([from, to]) => {
        const {output, lse} = attention(from, to);
        return {output: tf.tensor(output, [1, 1, 1, size]), lse: tf.tensor([lse], [1, 1, 1])};
      }));
      const all = attention(0, keys);
      expectClose(merged.output.dataSync(), all.output, 1e-6);
      expectClose(merged.lse.dataSync(), [all.lse], 1e-6);
    });
  });

  it('has the gradient of its gradient', () => {
    const parts = randomParts(2, 8, 1);
    parts.lses[1][3] = parts.lses[0][3]; // a tie
    const random = new Random(4);
    const dOutput = Array.from(random.normals(ROWS * DV));
    const dLse = Array.from(random.normals(ROWS));
    const direction = Array.from(random.normals(ROWS));
    const [a, b] = parts.lses;
    // The gradient in the first LSE, at the first LSE moved along `direction`, and twice the difference of that.
    const moved = (step: number) => numericGradients(
        {...parts, lses: [a.map((value, row) => value + step * direction[row]), b]}, dOutput, dLse).lses[0];
    const [up, down] = [moved(1e-3), moved(-1e-3)];
    const expected = up.map((value, row) => (value - down[row]) / 2e-3);
    expectNothingLeft(() => tf.tidy(() => {
      const [first, second] = tensorsOf(parts, 'bhnd');
      const gradient = (lse: tf.Tensor) => tf.grad((x: tf.Tensor) => {
        const merged = mergeAttention([{output: first.output, lse: x}, second], {layout: 'bhnd'});
        return tf.add(
            tf.sum(tf.mul(merged.output, outputTensor(dOutput, 'bhnd'))),
            tf.sum(tf.mul(merged.lse, lseTensor(dLse, 'bhnd'))));
      })(lse);
      const secondGradient =
          tf.grad((x: tf.Tensor) => tf.sum(tf.mul(gradient(x), lseTensor(direction, 'bhnd'))))(first.lse);
      expectClose(secondGradient.dataSync(), expected, 1e-3);
    }) as undefined);
  });

  it('works where the parts are made and merged in a tidy of their own', () => {
    expectNothingLeft(() => {
      const x = tf.tensor([1, 2, 3, 4], [1, 2, 1, 2]);
      const gradient = tf.grad((t: tf.Tensor) => tf.tidy(() => {
        const part = (scale: number) => tf.tidy(() => ({
          output: tf.mul(t, scale),
          lse: tf.reshape(tf.sum(tf.mul(t, scale), -1), [1, 1, 2]),
        }));
        return mergeAttention([part(1), part(-1)]).output;
      }))(x);
      expect(gradient.shape).toEqual([1, 2, 1, 2]);
      expect(Array.from(gradient.dataSync()).every(Number.isFinite)).toBeTrue();
      return [x, gradient];
    });
  });

  describe('refuses', () => {
    let output: tf.Tensor;
    let lse: tf.Tensor;

    beforeAll(() => {
      output = tf.ones([2, 3, 4, 5]);
      lse = tf.ones([2, 4, 3]);
    });
    afterAll(() => tf.dispose([output, lse]));

    const given: Record<string, () => tf.Tensor> = {
      int: () => tf.ones([2, 3, 4, 5], 'int32'),
      rank2: () => tf.ones([4, 5]),
      rank5: () => tf.ones([1, 2, 3, 4, 5]),
      longer: () => tf.ones([2, 4, 4, 5]),
      otherOrder: () => tf.ones([2, 3, 4]),
      intLse: () => tf.ones([2, 4, 3], 'int32'),
    };
    const bad: Array<[string, (t: Record<string, tf.Tensor>) => unknown[], string]> = [
      ['no parts', () => [], 'an array of at least one part for parts, received undefined'],
      ['an empty array', () => [[]], 'an array of at least one part for parts, received []'],
      ['one part that is no array', () => [{output, lse}],
       'an array of at least one part for parts, received an object with keys [output,lse]'],
      ['a part of null', () => [[{output, lse}, null]],
       'an object with output and lse for parts[1], received null'],
      ['a part without output', () => [[{lse}]],
       'a tensor or a nested array for parts[0].output, received undefined'],
      ['a part without lse', () => [[{output, lse}, {output}]],
       'a tensor or a nested array for parts[1].lse, received undefined'],
      ['an int32 output', ({int}) => [[{output: int, lse}]],
       'a float32 tensor, [B,N,H,Dv] or [T,H,Dv] for parts[0].output, received int32 [2,3,4,5]'],
      ['an output of rank 2', ({rank2}) => [[{output: rank2, lse}], {layout: 'bhnd'}],
       'a float32 tensor, [B,H,N,Dv] or [T,H,Dv] for parts[0].output, received float32 [4,5]'],
      ['an output of rank 5', ({rank5}) => [[{output: rank5, lse}]],
       'a float32 tensor, [B,N,H,Dv] or [T,H,Dv] for parts[0].output, received float32 [1,2,3,4,5]'],
      ['outputs of two shapes', ({longer}) => [[{output, lse}, {output: longer, lse}]],
       'the shape of parts[0].output, [2,3,4,5] for parts[1].output, received float32 [2,4,4,5]'],
      ['an lse in the order of the output', ({otherOrder}) => [[{output, lse}, {output, lse: otherOrder}]],
       'a float32 tensor [B,H,N] = [2,4,3] for parts[1].lse, received float32 [2,3,4]'],
      ['an lse of the other layout', () => [[{output, lse}], {layout: 'bhnd'}],
       'a float32 tensor [B,H,N] = [2,3,4] for parts[0].lse, received float32 [2,4,3]'],
      ['an lse that does not belong to [T,H,Dv]', ({otherOrder}) => [[{output: otherOrder, lse}]],
       'a float32 tensor [H,T] = [3,2] for parts[0].lse, received float32 [2,4,3]'],
      ['an int32 lse', ({intLse}) => [[{output, lse: intLse}]],
       'a float32 tensor [B,H,N] = [2,4,3] for parts[0].lse, received int32 [2,4,3]'],
      ['a layout of rank 3', () => [[{output, lse}], {layout: 'thd'}],
       'one of \'bnhd\', \'bhnd\' for layout, received \'thd\''],
      ['another option', () => [[{output, lse}], {axis: 1}],
       'one of layout for the name of an option, received \'axis\''],
      ['options of null', () => [[{output, lse}], null], 'an object for options, received null'],
    ];
    for (const [what, args, message] of bad) {
      it(what, () => {
        const tensors = Object.fromEntries(Object.entries(given).map(([name, make]) => [name, make()]));
        expectInvalid(() => (mergeAttention as (...all: unknown[]) => unknown)(...args(tensors)), message);
        tf.dispose(tensors);
      });
    }

    it('a disposed lse', () => {
      const gone = tf.ones([2, 4, 3]);
      gone.dispose();
      expectInvalid(() => mergeAttention([{output, lse: gone}]),
          'a tensor that is not disposed for parts[0].lse, received a disposed tensor');
    });
  });
});
