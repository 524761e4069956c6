import type {GradInputName, KernelCall} from '../../op/kernels.js';

import type {Backend} from './backend.js';
import {isMatrixKind} from './choose.js';
import {firstTime, isWatched} from './matrix_plan.js';
import type {HalfName} from './matrix_plan.js';
import {LARGEST_WORDS} from './plan.js';
import {halfShapesOf, kindOf, VARIANT} from './prepare.js';
import {run, SLOT} from './run.js';
import type {Binding, Call, Run} from './run.js';
import type {Scratch} from './scratch.js';

/** The operands of a call as f16, for kernels over subgroup matrices (kernels/wgsl/half.wgsl). */
export interface Halves {
  /** q, k and v, and the largest elements. */
  readonly rows: readonly Binding[];
  /** dO too, in the backward pass. */
  readonly all: readonly Binding[];
  readonly largest: Binding;
}

/**
 * Records the turning of q, k, v (and of dO, in the backward pass) into f16.
 * @param splitOperands into two f16 each.
 */
export function makeHalves(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>, splitOperands: boolean): Halves {
  const {q, k, v, blockTable, dOutput, dLse} = call.tensors;
  const shapes = halfShapesOf(backend.device, call.problem, splitOperands);
  const half = (name: HalfName) => scratch.take(`${name} as f16`, shapes[name]);
  const largest = {binding: SLOT.largest, tensor: scratch.take('the largest elements', [LARGEST_WORDS])};
  const rows: Binding[] = [
    {binding: SLOT.halfQ, tensor: half('q')}, {binding: SLOT.halfK, tensor: half('k')},
    {binding: SLOT.halfV, tensor: half('v')}, largest,
  ];
  const all = dOutput ? [...rows, {binding: SLOT.halfDOutput, tensor: half('dOutput')}] : rows;
  const operands: Binding[] = [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    {binding: SLOT.k, tensor: k, operand: 'k'},
    {binding: SLOT.v, tensor: v, operand: 'v'},
  ];
  if (blockTable) {
    operands.push({binding: SLOT.blockTable, tensor: blockTable});
  }
  if (dOutput) {
    operands.push(
        {binding: SLOT.dOutput, tensor: dOutput, operand: 'output'},
        {binding: SLOT.dLse, ...dLse ? {tensor: dLse, operand: 'rows'} : {tensor: dOutput}}); // or not read
  }
  const first = (splitOperands ? VARIANT.splitOperands : 0) | (dOutput ? VARIANT.hasDOutput : 0) |
      (dLse ? VARIANT.hasLseGradient : 0);
  for (const variants of [first, first | VARIANT.again]) {
    run(backend, call, {kernel: 'to_half', variants, operands, bindings: all});
  }
  return {rows, all, largest};
}

/**
 * Runs a kernel: over subgroup matrices and then one for what it could not make, tiles of the forward pass or calls
 * that are not finite, or as it is.
 */
export function runWith(backend: Backend, halves: Halves|undefined, call: Call, one: Run): void {
  const {kernel, variants = 0, forGradient, bindings} = one;
  const {kind} = kindOf(backend.device, kernel, call.problem, forGradient);
  if (!halves || !isMatrixKind(kind)) {
    run(backend, call, one);
    return;
  }
  const operands = kernel === 'forward' ? halves.rows : halves.all;
  run(backend, call, {kernel, variants, forGradient, operands, bindings});
  const splitOperands = kind === 'matrix_split';
  if (kernel === 'forward' && !splitOperands && !isWatched(firstTime(kernel, call.problem, splitOperands))) {
    run(backend, call, {kernel, variants: variants | VARIANT.again, forGradient, operands, bindings});
  } else {
    run(backend, call, {
      kernel, variants: variants | VARIANT.routed, forGradient, operands: one.operands,
      bindings: [...bindings, halves.largest],
    });
  }
}
