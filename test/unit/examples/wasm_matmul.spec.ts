import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {speedUpWasmMatMul} from '../../../examples/gpt/wasm_matmul.js';

/** Shapes of a and b before any transpose. */
const SHAPES: Array<[string, number[], number[]]> = [
  ['matrices', [33, 70], [70, 41]],
  ['more than one tile of a transpose', [100, 130], [130, 65]],
  ['a row', [1, 300], [300, 20]],
  ['too small to bother', [3, 4], [4, 5]],
  ['a stack', [3, 40, 30], [3, 30, 50]],
  ['stacks of stacks', [2, 3, 20, 30], [2, 3, 30, 25]],
  ['a stack of one', [1, 40, 30], [1, 30, 50]],
  ['a broadcast stack', [3, 40, 30], [1, 30, 50]],
];

const swapped = (shape: number[]): number[] => [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!];

describe('speedUpWasmMatMul', () => {
  let undo: () => void;

  beforeEach(async () => {
    await tf.setBackend('wasm');
    undo = () => {};
  });

  afterEach(() => undo());

  for (const [name, aShape, bShape] of SHAPES) {
    for (const [transposeA, transposeB] of [[false, false], [true, false], [false, true], [true, true]]) {
      it(`agrees with the kernel of tfjs: ${name}, transposes ${transposeA} and ${transposeB}`, () => {
        const a = tf.randomNormal(transposeA ? swapped(aShape) : aShape, 0, 1, 'float32', 1);
        const b = tf.randomNormal(transposeB ? swapped(bShape) : bShape, 0, 1, 'float32', 2);
        const multiply = () => tf.matMul(a, b, transposeA, transposeB);
        const before = multiply();
        undo = speedUpWasmMatMul();
        const {numTensors, numDataBuffers} = tf.memory();
        const after = multiply();
        expect(after.shape).toEqual(before.shape);
        const difference = tf.tidy(() => tf.max(tf.abs(tf.sub(after, before))).dataSync()[0]);
        expect(difference).toBeLessThan(1e-4);
        after.dispose();
        expect(tf.memory().numTensors).toBe(numTensors);
        expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
        tf.dispose([a, b, before]);
      });
    }
  }

  it('leaves the gradients of a product as they were', () => {
    const a = tf.randomNormal([48, 64], 0, 1, 'float32', 1);
    const b = tf.randomNormal([64, 96], 0, 1, 'float32', 2);
    const gradients = () => tf.grads((x, y) => tf.sum(tf.square(tf.matMul(x, y))))([a, b]);
    const before = gradients();
    undo = speedUpWasmMatMul();
    const after = gradients();
    before.forEach((gradient, n) => {
      const difference = tf.tidy(() => tf.max(tf.abs(tf.sub(gradient, after[n]))).dataSync()[0]);
      expect(difference).toBeLessThan(0.02); // of values in the thousands
    });
    tf.dispose([a, b, before, after]);
  });

  it('may be called again, and can be taken back', () => {
    const kernel = tf.getKernel('BatchMatMul', 'wasm').kernelFunc;
    undo = speedUpWasmMatMul();
    const faster = tf.getKernel('BatchMatMul', 'wasm').kernelFunc;
    expect(faster).not.toBe(kernel);
    speedUpWasmMatMul()();
    expect(tf.getKernel('BatchMatMul', 'wasm').kernelFunc).toBe(faster);
    undo();
    expect(tf.getKernel('BatchMatMul', 'wasm').kernelFunc).toBe(kernel);
  });
});
