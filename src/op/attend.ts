import {engine, randomUniform, reshape, tensor, Tensor, tidy, util} from '@tensorflow/tfjs-core';
import type {Tensor4D, TensorLike} from '@tensorflow/tfjs-core';

import {shareGradientWork} from './gradient.js';
import {attentionAttrs, FLASH_ATTENTION, runAttentionKernel} from './kernels.js';
import type {AttentionInputName} from './kernels.js';
import {invalid} from './options.js';
import type {CommonOptions} from './options.js';
import {problemOf} from './problem.js';
import type {CallOptions} from './problem.js';

/** The one way from checked tensors to the kernel: every public form of attention ends in {@link attend}. */

export type Input = Tensor|TensorLike;

type DType = 'float32'|'bool'|'int32';

/** Shape of a nested array; undefined where its rows differ in length, which tfjs would not notice. */
function shapeOf(value: unknown): number[]|undefined {
  if (ArrayBuffer.isView(value)) {
    return [(value as Float32Array).length];
  }
  if (!Array.isArray(value)) {
    return [];
  }
  if (value.every(element => typeof element !== 'object')) {
    return [value.length];
  }
  const shapes = value.map(shapeOf);
  return shapes.every(shape => shape && shape.join() === shapes[0]?.join()) ? [value.length, ...shapes[0]!] : undefined;
}

/** A tensor from what a caller may pass for one. */
export function toTensor(value: Input, name: string, dtype?: DType): Tensor {
  if (value instanceof Tensor) {
    if (value.isDisposed) {
      throw invalid('a tensor that is not disposed', name, value);
    }
    return value;
  }
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) {
    throw invalid('a tensor or a nested array', name, value);
  }
  const shape = shapeOf(value);
  if (!shape) {
    throw invalid('a nested array with rows of equal lengths', name, value);
  }
  if (dtype && util.flatten(value).some(element => typeof element !== 'number' && typeof element !== 'boolean')) {
    throw invalid('a nested array of numbers or booleans', name, value);
  }
  return tensor(value, shape as [number], dtype);
}

/** A float32 tensor of a rank that `letters` describes. */
export function rowsTensor(value: Input, name: string, letters: string): Tensor {
  const t = toTensor(value, name);
  const rank = letters.split(',').length;
  if (t.dtype !== 'float32' || t.rank !== rank) {
    throw invalid(`a float32 tensor of rank ${rank}, ${letters}`, name, t);
  }
  return t;
}

/** A mask or a bias with leading axes of 1 up to rank 4. */
export function broadcastTensor(value: Input, name: 'mask'|'bias', dtype: 'bool'|'float32'): Tensor4D {
  const t = toTensor(value, name, dtype);
  if (t.dtype !== dtype || t.rank > 4) {
    throw invalid(`a ${dtype} tensor that broadcasts to [B,Hq,Nq,Nk]`, name, t);
  }
  return reshape(t, [...new Array<number>(4 - t.rank).fill(1), ...t.shape] as Tensor4D['shape']);
}

/** Integer in [0, 2⁴⁸) from tfjs' own generator. */
export function drawSeed(): number {
  const [low, high] = tidy(() => randomUniform([2], 0, 2 ** 24).dataSync());
  return Math.floor(low) + Math.floor(high) * 2 ** 24;
}

export type NamedInputs = {[name in AttentionInputName]?: Tensor};

/** The tensors among the options that every form of attention has. */
export function optionTensors({alibiSlopes, sinks}: CommonOptions): NamedInputs {
  const named: NamedInputs = {};
  for (const [name, value] of Object.entries({alibiSlopes, sinks})) {
    if (value !== undefined) {
      const t = toTensor(value, name, 'float32');
      if (t.dtype !== 'float32') {
        throw invalid('a float32 tensor', name, t);
      }
      named[name as 'alibiSlopes'|'sinks'] = t;
    }
  }
  return named;
}

/** What attention gives; `lse` may be missing where nobody asked for it. */
export interface Attended {
  output: Tensor;
  lse?: Tensor;
}

/**
 * Runs attention on tensors that are checked but for their shapes. Output and LSE, both with gradients.
 * @param outputOnly the LSE is not asked for.
 */
export function attend(named: NamedInputs, options: CallOptions, outputOnly: boolean): Attended {
  problemOf(named, options); // throws where the shapes do not belong together
  const inputNames: AttentionInputName[] = [];
  const inputs: Tensor[] = [];
  for (const [name, input] of Object.entries(named) as Array<[AttentionInputName, Tensor|undefined]>) {
    if (input !== undefined) {
      inputNames.push(name);
      inputs.push(input);
    }
  }
  const forGradient = engine().state.gradientDepth > 0;
  const attrs = attentionAttrs(options, inputNames, forGradient, outputOnly && !forGradient);
  const [output, lse] = runAttentionKernel(FLASH_ATTENTION, inputs, attrs);
  shareGradientWork(output, attrs);
  return {output, lse};
}
