import type {GradInputName, KernelCall} from '../../op/kernels.js';

import type {Backend} from './backend.js';
import {isMatrixKind} from './choose.js';
import {capabilitiesOf} from './device.js';
import {firstTime, halfShape, isWatched, matrixShape} from './matrix_plan.js';
import type {HalfName} from './matrix_plan.js';
import {LARGEST_WORDS} from './plan.js';
import {kindOf} from './prepare.js';
import {run, SLOT} from './run.js';
import type {Binding, Run} from './run.js';
import type {Scratch} from './scratch.js';

/** The operands of a call as f16, for kernels over subgroup matrices (kernels/wgsl/half.wgsl). */
export interface Halves {
  readonly bindings: readonly Binding[];
  readonly largest: Binding;
}

/**
 * Records the turning of q, k, v (and of dO, in the backward pass) into f16.
 * @param splitOperands into two f16 each.
 */
export function makeHalves(
    backend: Backend, scratch: Scratch, {tensors, problem, seed}: KernelCall<GradInputName>,
    splitOperands: boolean): Halves {
  const {q, k, v, blockTable, dOutput, dLse} = tensors;
  const shape = matrixShape(capabilitiesOf(backend.device))!;
  const half = (name: HalfName) =>
      scratch.take(`${name} as f16`, halfShape(problem, shape, name, splitOperands));
  const largest = {binding: SLOT.largest, tensor: scratch.take('the largest elements', [LARGEST_WORDS])};
  const bindings: Binding[] = [
    {binding: SLOT.halfQ, tensor: half('q')}, {binding: SLOT.halfK, tensor: half('k')},
    {binding: SLOT.halfV, tensor: half('v')},
    ...dOutput ? [{binding: SLOT.halfDOutput, tensor: half('dOutput')}] : [],
  ];
  for (const again of [false, true]) {
    run(backend, {
      kernel: 'to_half', problem, seed, small: tensors,
      features: {again, splitOperands, hasDOutput: dOutput !== undefined, hasLseGradient: dLse !== undefined},
      bindings: [
        {binding: SLOT.q, tensor: q, operand: 'q'},
        {binding: SLOT.k, tensor: k, operand: 'k'},
        {binding: SLOT.v, tensor: v, operand: 'v'},
        ...blockTable ? [{binding: SLOT.blockTable, tensor: blockTable}] : [],
        ...dOutput ? [
          {binding: SLOT.dOutput, tensor: dOutput, operand: 'output'},
          {binding: SLOT.dLse, ...dLse ? {tensor: dLse, operand: 'rows'} as const : {tensor: dOutput}}, // or not read
        ] as const : [],
        ...bindings, largest,
      ],
    });
  }
  return {bindings, largest};
}

const OPERANDS: readonly number[] = [SLOT.q, SLOT.k, SLOT.v, SLOT.dOutput, SLOT.blockTable];

/**
 * Runs a kernel: over subgroup matrices and then one for what it could not make, tiles of the forward pass or calls
 * that are not finite, or as it is.
 */
export function runWith(backend: Backend, halves: Halves|undefined, task: Run): void {
  const {kernel, problem, bindings, features, forGradient} = task;
  const {kind} = kindOf(backend.device, kernel, problem, forGradient);
  if (!halves || !isMatrixKind(kind)) {
    run(backend, task);
    return;
  }
  const halvesOf = halves.bindings.filter(
      ({binding}) => binding !== SLOT.halfDOutput || kernel !== 'forward');
  const byMatrix = {
    ...task,
    bindings: [
      ...bindings.filter(({binding}) => !OPERANDS.includes(binding)), ...halvesOf, halves.largest,
    ],
  };
  run(backend, byMatrix);
  const splitOperands = kind === 'matrix_split';
  if (kernel === 'forward' && !splitOperands && !isWatched(firstTime(kernel, problem, splitOperands))) {
    run(backend, {...byMatrix, features: {...features, again: true}});
  } else {
    run(backend, {...task, features: {...features, routed: true}, bindings: [...bindings, halves.largest]});
  }
}
