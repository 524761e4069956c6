import {
  add, engine, equal, exp, mul, registerGradient, reshape, sub, sum, tidy, transpose, where, zeros, zerosLike,
} from '@tensorflow/tfjs-core';
import type {GradConfig, NamedAttrMap, Tensor} from '@tensorflow/tfjs-core';

import {byName, FLASH_ATTENTION, FLASH_ATTENTION_GRAD, runAttentionKernel} from './kernels.js';
import type {AttentionAttrs, AttentionInputName, GradAttrs, GradInputName, WantedGradient} from './kernels.js';

/** tfjs' own type of this name is not exported. */
type NamedGradientMap = Record<string, () => Tensor>;

/** The part of tfjs' tape that is used here; its own type is not exported. */
interface TapeNode {
  kernelName: string;
  inputs: Record<string, Tensor>;
  outputs: Tensor[];
  saved?: Tensor[];
  gradient?: (dys: Array<Tensor|null>) => NamedGradientMap;
}

/** Inputs that have a gradient. */
type Differentiable = WantedGradient|'sinks';
type Gradients = {[name in Differentiable]?: Tensor};

const DIFFERENTIABLE: readonly string[] = ['q', 'k', 'v', 'qkv', 'kv', 'bias', 'sinks'] satisfies Differentiable[];

const isDifferentiable = (name: AttentionInputName): name is Differentiable => DIFFERENTIABLE.includes(name);

/**
 * The sink of a row is one more logit, with probability p = exp(sink − LSE) and no value:
 * dSink = Σ over batches and queries of p·(dLSE − rowsum(dO∘O)).
 */
function sinksGradient(
    {inputNames, layout}: AttentionAttrs, saved: readonly Tensor[], dOutput: Tensor|null, dLse: Tensor|null): Tensor {
  return tidy(() => {
    const {sinks} = byName(inputNames, saved);
    const [output, lse, lseTail] = saved.slice(inputNames.length);
    const [heads] = sinks!.shape;
    const perHead = [heads, 1]; // against the last axes [Hq,Nq] of the LSE
    let rows: Tensor = dLse ?? zerosLike(lse);
    if (dOutput) {
      // A row that sees no key has O = 0, whatever its dO: 0·∞ must not reach the sum.
      const sums = sum(where(equal(output, 0), zerosLike(output), mul(dOutput, output)), -1);
      const ordered = layout === 'bnhd' ? transpose(sums, [0, 2, 1]) : layout === 'thd' ? transpose(sums) : sums;
      rows = sub(rows, ordered);
    }
    // Where no key is seen and the sink is −∞ too, so is the LSE: there is no probability to speak of.
    const hidden = equal(lse, -Infinity);
    const logit = where(hidden, zerosLike(lse), sub(sub(reshape(sinks!, perHead), lse), lseTail));
    const weights = where(hidden, zerosLike(lse), exp(logit));
    // An LSE of NaN must reach the sum, and WGSL does not promise that exp hands it on.
    const terms = add(mul(weights, rows), mul(logit, 0));
    const flat = reshape(terms, [-1, heads, lse.shape[lse.rank - 1]!]);
    // A sink of −∞ is none, and 0·NaN of its rows is not its gradient.
    return where(equal(sinks!, -Infinity), zerosLike(sinks!), sum(sum(flat, 2), 0));
  });
}

/** Sums a gradient over the axes along which its input was broadcast. */
function sumToShape(gradient: Tensor, shape: readonly number[]): Tensor {
  const axes = shape.flatMap((n, axis) => n === 1 && gradient.shape[axis] !== 1 ? [axis] : []);
  return axes.length === 0 ? gradient : reshape(sum(gradient, axes, true), [...shape]);
}

/** Gradients of the wanted inputs from dO and dLSE, either of which may be missing (then it is zero). */
function computeGradients(
    wanted: readonly Differentiable[], dOutput: Tensor|null, dLse: Tensor|null, saved: readonly Tensor[],
    attrs: AttentionAttrs): Gradients {
  const gradients: Gradients = {};
  const ofKernel = wanted.filter((name): name is WantedGradient => name !== 'sinks');
  if (ofKernel.length > 0) {
    const names: GradInputName[] = [...attrs.inputNames, 'output', 'lse', 'lseTail', 'dOutput'];
    const output = saved[attrs.inputNames.length];
    const inputs = [...saved, dOutput ?? zerosLike(output)];
    if (dLse !== null) {
      names.push('dLse');
      inputs.push(dLse);
    }
    const gradAttrs: GradAttrs = {...attrs, inputNames: names, wanted: ofKernel};
    Object.assign(gradients, byName(ofKernel, runAttentionKernel(FLASH_ATTENTION_GRAD, inputs, gradAttrs)));
  }
  if (gradients.bias) {
    gradients.bias = sumToShape(gradients.bias, byName(attrs.inputNames, saved).bias!.shape);
  }
  if (wanted.includes('sinks')) {
    gradients.sinks = sinksGradient(attrs, saved, dOutput, dLse);
  }
  return gradients;
}

/** One thunk for each input, keyed by its place as tfjs keys the tape of a kernel with an array of inputs. */
function gradientMap(
    {inputNames, cache}: AttentionAttrs, saved: readonly Tensor[],
    gradientOf: (name: Differentiable) => Tensor): NamedGradientMap {
  return Object.fromEntries(inputNames.map((name, place) => [String(place), () => {
    if (cache) {
      throw new Error('flashAttention: attention over a cache has no gradient');
    }
    if (isDifferentiable(name)) {
      return gradientOf(name);
    }
    if (name === 'alibiSlopes') {
      throw new Error('flashAttention: alibiSlopes has no gradient; slopes that are trained go into a bias');
    }
    return zeros(saved[place].shape); // masks and integers, which tfjs differentiates as it does its own
  }]));
}

const forwardGradient: GradConfig = {
  kernelName: FLASH_ATTENTION,
  saveAllInputs: true,
  outputsToSave: [true, true, true],
  // tfjs asks for one input's gradient at a time and does not say which it will ask for, so here each is computed
  // by itself. Calls through `flashAttention` take the joint way that `shareGradientWork` puts on the tape.
  gradFunc: (dys: Tensor|Tensor[], saved: Tensor[], attrs: NamedAttrMap) => {
    const [dOutput, dLse] = dys as Tensor[];
    const attention = attrs as unknown as AttentionAttrs;
    return gradientMap(
        attention, saved, name => computeGradients([name], dOutput, dLse, saved, attention)[name]!);
  },
};

const secondGradient: GradConfig = {
  kernelName: FLASH_ATTENTION_GRAD,
  gradFunc: (_dys, _saved, attrs) => {
    const fail = () => {
      throw new Error('flashAttention: the gradient of its gradient is not implemented');
    };
    return Object.fromEntries((attrs as unknown as GradAttrs).inputNames.map((_, place) => [String(place), fail]));
  },
};

/** Registers both gradients with tfjs. */
export function registerAttentionGradients(): void {
  registerGradient(forwardGradient);
  registerGradient(secondGradient);
}

/**
 * Call right after the forward kernel ran. tfjs calls `gradient` as a method of a copy of the tape node whose
 * `inputs` hold only what gradients are asked for, and passes null for an output that nothing used. Reading both
 * there lets one kernel call compute exactly the gradients that are wanted, sharing their work, and spares the
 * zeros that tfjs would otherwise upload for an unused LSE.
 */
export function shareGradientWork(output: Tensor, attrs: AttentionAttrs): void {
  const tape = engine().state.activeTape as unknown as TapeNode[]|null;
  const node = tape?.[tape.length - 1];
  if (node?.kernelName !== FLASH_ATTENTION || node.outputs[0] !== output || !node.gradient) {
    return;
  }
  const saved = node.saved!;
  node.gradient = function(this: TapeNode|undefined, [dOutput, dLse]) {
    const asked = Object.keys(this?.inputs ?? node.inputs).map(place => attrs.inputNames[Number(place)]);
    const wanted = asked.filter(isDifferentiable);
    const gradients =
        wanted.length === 0 ? {} : computeGradients(wanted, dOutput ?? null, dLse ?? null, saved, attrs);
    return gradientMap(attrs, saved, name => gradients[name]!);
  };
}
