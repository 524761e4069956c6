import {engine, registerGradient, zeros, zerosLike} from '@tensorflow/tfjs-core';
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

const DIFFERENTIABLE: readonly string[] = ['q', 'k', 'v'];

/** Gradients of the wanted inputs from dO and dLSE, either of which may be missing (then it is zero). */
function computeGradients(
    wanted: readonly WantedGradient[], dOutput: Tensor|null, dLse: Tensor|null, saved: readonly Tensor[],
    attrs: AttentionAttrs): Tensor[] {
  const names: GradInputName[] = [...attrs.inputNames, 'output', 'lse', 'lseTail', 'dOutput'];
  const output = saved[attrs.inputNames.length];
  const inputs = [...saved, dOutput ?? zerosLike(output)];
  if (dLse !== null) {
    names.push('dLse');
    inputs.push(dLse);
  }
  const gradAttrs: GradAttrs = {...attrs, inputNames: names, wanted};
  return runAttentionKernel(FLASH_ATTENTION_GRAD, inputs, gradAttrs);
}

/** One thunk for each input, keyed by its place as tfjs keys the tape of a kernel with an array of inputs. */
function gradientMap(
    attrs: AttentionAttrs, saved: readonly Tensor[], gradientOf: (name: WantedGradient) => Tensor): NamedGradientMap {
  return Object.fromEntries(attrs.inputNames.map((name, place) => [
    String(place),
    () => DIFFERENTIABLE.includes(name) ? gradientOf(name as WantedGradient) : zeros(saved[place].shape),
  ]));
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
        attention, saved, name => computeGradients([name], dOutput, dLse, saved, attention)[0]);
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
    const wanted = asked.filter((name): name is WantedGradient&AttentionInputName => DIFFERENTIABLE.includes(name));
    const gradients = wanted.length === 0 ? {} :
        byName(wanted, computeGradients(wanted, dOutput ?? null, dLse ?? null, saved, attrs));
    return gradientMap(attrs, saved, name => gradients[name]!);
  };
}
