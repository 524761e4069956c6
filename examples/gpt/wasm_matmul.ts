import * as tf from '@tensorflow/tfjs';

/** The members of tfjs' WASM backend that are used here; the package exports no type for it. */
interface WasmBackend extends tf.KernelBackend {
  makeOutput(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  typedArrayFromHeap(info: tf.TensorInfo): Float32Array;
}

interface MatMulInputs {
  a: tf.TensorInfo;
  b: tf.TensorInfo;
}

interface MatMulAttrs {
  transposeA: boolean;
  transposeB: boolean;
}

/** Below this many multiply-adds of one matrix product, the calls cost more than they save. */
const SMALLEST_PRODUCT = 16 * 16 * 16;
const TILE = 32;

let plainKernel: tf.KernelFunc|undefined;

/** [rows,columns] → [columns,rows], in tiles, so that neither side strides through memory. */
function transposeInto(from: Float32Array, rows: number, columns: number, into: Float32Array) {
  for (let r0 = 0; r0 < rows; r0 += TILE) {
    const r1 = Math.min(r0 + TILE, rows);
    for (let c0 = 0; c0 < columns; c0 += TILE) {
      const c1 = Math.min(c0 + TILE, columns);
      for (let r = r0; r < r1; r++) {
        for (let c = c0; c < c1; c++) {
          into[c * rows + r] = from[r * columns + c];
        }
      }
    }
  }
}

const matrixShape = ({shape}: tf.TensorInfo, transposed: boolean): [number, number] => {
  const [rows, columns] = shape.slice(-2);
  return transposed ? [columns, rows] : [rows, columns];
};

/** Matrix number `place` of a stack, untransposed, as a tensor of its own; the stack itself where it is just that. */
function oneMatrix(
    backend: WasmBackend, stack: tf.TensorInfo, place: number, count: number,
    transposed: boolean): {matrix: tf.TensorInfo, dispose(): void} {
  const [rows, columns] = matrixShape(stack, transposed);
  if (count === 1 && !transposed) {
    return {matrix: {...stack, shape: [rows, columns]}, dispose: () => {}};
  }
  const matrix = backend.makeOutput([rows, columns], 'float32');
  // The heap may move whenever something is allocated on it, so views are taken afterwards, and each time.
  const from = backend.typedArrayFromHeap(stack).subarray(place * rows * columns, (place + 1) * rows * columns);
  const into = backend.typedArrayFromHeap(matrix);
  if (transposed) {
    transposeInto(from, columns, rows, into);
  } else {
    into.set(from);
  }
  return {matrix, dispose: () => backend.disposeData(matrix.dataId)};
}

function matMul({inputs, attrs, backend: anyBackend}: Parameters<tf.KernelFunc>[0]): tf.TensorInfo|tf.TensorInfo[] {
  const {a, b} = inputs as unknown as MatMulInputs;
  const {transposeA, transposeB} = attrs as unknown as MatMulAttrs;
  const backend = anyBackend as WasmBackend;
  const [m, k] = matrixShape(a, transposeA);
  const n = matrixShape(b, transposeB)[1];
  const leading = a.shape.slice(0, -2);
  const count = tf.util.sizeFromShape(leading);
  const isPlain = count === 1 && !transposeA && !transposeB;
  if (isPlain || m * k * n < SMALLEST_PRODUCT || !tf.util.arraysEqual(leading, b.shape.slice(0, -2))) {
    return plainKernel!({inputs, attrs, backend});
  }
  const out = count === 1 ? undefined : backend.makeOutput([...leading, m, n], 'float32');
  for (let place = 0; place < count; place++) {
    const left = oneMatrix(backend, a, place, count, transposeA);
    const right = oneMatrix(backend, b, place, count, transposeB);
    const product = plainKernel!({
      inputs: {a: left.matrix, b: right.matrix},
      attrs: {transposeA: false, transposeB: false},
      backend,
    }) as tf.TensorInfo;
    left.dispose();
    right.dispose();
    if (!out) {
      return {...product, shape: [...leading, m, n]};
    }
    backend.typedArrayFromHeap(out).set(backend.typedArrayFromHeap(product), place * m * n);
    backend.disposeData(product.dataId);
  }
  return out!;
}

/**
 * Makes `tf.matMul` on the `wasm` backend fast where training needs it. tfjs 4.22 hands only the product of two plain
 * matrices to XNNPACK; with `transposeA` or `transposeB` (every gradient of a matMul) or with a batch (attention) it
 * falls to a scalar loop. Here each matrix is transposed or cut out first, and multiplied plainly.
 *
 * Measured with 1 thread of an AMD EPYC, 2026-11-23, GFLOP/s before → after:
 * - [1024,128] × [128,512]: 23, as before (goes straight to tfjs' kernel)
 * - [1024,128]ᵀ × [1024,512]: 1.0 → 21
 * - [1024,512] × [128,512]ᵀ: 1.9 → 22
 * - 64 × ([64,32] × [64,32]ᵀ): 1.9 → 2.9
 * - 4 × ([1024,32] × [1024,32]ᵀ): 1.8 → 20
 * - 4 × ([1024,1024] × [1024,32]): 1.8 → 20
 * - 4 × ([1024,1024]ᵀ × [1024,32]): 0.6 → 7.9
 *
 * Applies to all of the process, and safe to call more than once.
 * @returns what takes it back.
 */
export function speedUpWasmMatMul(): () => void {
  const config = tf.getKernel('BatchMatMul', 'wasm');
  if (!config || plainKernel) {
    return () => {};
  }
  const replace = (kernelFunc: tf.KernelFunc) => {
    tf.unregisterKernel('BatchMatMul', 'wasm');
    tf.registerKernel({...config, kernelFunc});
  };
  plainKernel = config.kernelFunc;
  replace(matMul);
  return () => {
    replace(config.kernelFunc);
    plainKernel = undefined;
  };
}
