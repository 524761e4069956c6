import type {GradInputName, KernelCall} from '../../op/kernels.js';

import type {Backend} from './backend.js';
import {isMatrixKind} from './choose.js';
import type {PlanKind} from './choose.js';
import type {HalfName} from './matrix_plan.js';
import {forwardWatchesItself, halfShapesOf, kindOf, VARIANT} from './prepare.js';
import {run, SLOT} from './run.js';
import type {Binding, Call, Run} from './run.js';
import type {Scratch} from './scratch.js';
import {LARGEST_WORDS} from './workgroups.js';

/** The operands of a call as f16, for kernels over subgroup matrices (kernels/wgsl/half.wgsl). */
export interface Halves {
  /** q, k and v, and dO in the backward pass. */
  readonly operands: readonly Binding[];
  /** The largest elements of each. */
  readonly largest: Binding;
}

/**
 * Records the turning of q, k, v (and of dO, in the backward pass) into f16: for the kind `matrix_split` into two each.
 * A forward pass of the kind `matrix` takes operands as f16 holds them, and makes again what that is not good for.
 */
export function makeHalves(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>, kind: PlanKind, isBackward: boolean): Halves {
  const {q, k, v, blockTable, dOutput, dLse} = call.tensors;
  const splitOperands = kind === 'matrix_split';
  const shapes = halfShapesOf(backend.device, call.problem, splitOperands);
  const half = (name: HalfName) => scratch.take(`${name} as f16`, shapes[name]);
  const largest = {binding: SLOT.largest, tensor: scratch.take('the largest elements', [LARGEST_WORDS])};
  const results: Binding[] = [
    {binding: SLOT.halfQ, tensor: half('q')}, {binding: SLOT.halfK, tensor: half('k')},
    {binding: SLOT.halfV, tensor: half('v')},
  ];
  const operands: Binding[] = [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    {binding: SLOT.k, tensor: k, operand: 'k'},
    {binding: SLOT.v, tensor: v, operand: 'v'},
  ];
  if (blockTable) {
    operands.push({binding: SLOT.blockTable, tensor: blockTable});
  }
  if (isBackward) {
    results.push({binding: SLOT.halfDOutput, tensor: half('dOutput')});
    operands.push(
        {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
        {binding: SLOT.dLse, ...dLse ? {tensor: dLse, operand: 'rows'} : {tensor: dOutput!}}); // or not read
  }
  const first = (splitOperands ? VARIANT.splitOperands : 0) | (isBackward ? VARIANT.hasDOutput : 0) |
      (isBackward && dLse ? VARIANT.hasLseGradient : 0);
  const bindings = [...results, largest];
  run(backend, call, {kernel: 'to_half', variants: first, operands, bindings});
  if (isBackward || splitOperands) {
    run(backend, call, {kernel: 'to_half', variants: first | VARIANT.again, operands, bindings});
  }
  return {operands: results, largest};
}

/**
 * Runs a kernel, over subgroup matrices or as it is.
 * @returns what has to run behind it, for what matrices could not make: tiles of the forward pass, calls that are not
 *     finite. Behind all kernels that can run side by side: it writes to the same results, so a GPU waits for them.
 */
export function runWith(backend: Backend, halves: Halves|undefined, call: Call, one: Run): Run[] {
  const {kernel, variants = 0, forGradient} = one;
  const {kind} = kindOf(backend.device, kernel, call.problem, forGradient);
  if (!halves || !isMatrixKind(kind)) {
    run(backend, call, one);
    return [];
  }
  const bindings = [...one.bindings, halves.largest];
  if (kernel === 'forward' && kind === 'matrix') {
    if (forwardWatchesItself(backend.device, call.problem)) {
      run(backend, call, {...one, operands: [...halves.operands, ...one.operands!], bindings});
      return [];
    }
    run(backend, call, {...one, operands: halves.operands});
    return [{kernel, variants: variants | VARIANT.again, forGradient, operands: one.operands, bindings}];
  }
  run(backend, call, {kernel, variants, forGradient, operands: halves.operands, bindings});
  return [{kernel, variants: variants | VARIANT.routed, forGradient, operands: one.operands, bindings}];
}
