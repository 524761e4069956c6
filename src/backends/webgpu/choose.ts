import type {Problem} from '../../op/problem.js';

import type {Capabilities} from './capabilities.js';
import type {KernelName} from './kernel_names.js';
import {matrixObstacle} from './matrix_plan.js';
import {problemClass} from './problem_class.js';

/**
 * Ways to run a kernel:
 * - `simt`: WebGPU's core and nothing else;
 * - `subgroup`: the same with subgroup operations where threads of a row meet;
 * - `matrix`: subgroup matrices, f16 operands and f32 sums;
 * - `matrix_split`: the same for float32, each operand the sum of two f16, which makes three products of one;
 * - `decode`: few queries over many keys, which are read once and straight into registers.
 */
export const PLAN_KINDS = ['simt', 'subgroup', 'matrix', 'matrix_split', 'decode'] as const;
export type PlanKind = typeof PLAN_KINDS[number];

/** Over subgroup matrices. */
export const isMatrixKind = (kind: PlanKind): boolean => kind === 'matrix' || kind === 'matrix_split';

/** A choice and what decided it. */
export interface Choice {
  readonly kind: PlanKind;
  readonly why: string;
}

/** Up to here, as when a model generates text, queries are few. */
export const FEW_QUERIES = 4;

/** Kinds that a kernel has beside `simt`, which all have. */
const KINDS: {readonly [kernel in KernelName]?: readonly PlanKind[]} = {
  forward: ['subgroup', 'matrix', 'matrix_split', 'decode'],
  backward_dq: ['matrix', 'matrix_split'], backward_dkv: ['matrix', 'matrix_split'],
};

/** Kernels of the backward pass that have plans of several kinds. */
const BACKWARD: readonly KernelName[] = ['backward_dq', 'backward_dkv'];

/** Whether the kernel's kind follows from the forward pass's: its scores must be rounded as those of the LSE. */
export const followsForward = (kernel: KernelName): boolean => BACKWARD.includes(kernel);

export const hasKind = (kernel: KernelName, kind: PlanKind): boolean =>
    kind === 'simt' || (KINDS[kernel] ?? []).includes(kind);

/** What stands in the way of running the problem that way on such a device, in words; undefined where nothing does. */
export function obstacle(
    kernel: KernelName, kind: PlanKind, problem: Problem, capabilities: Capabilities): string|undefined {
  if (!hasKind(kernel, kind)) {
    return `there is no ${kernel} of that kind`;
  }
  if (isMatrixKind(kind)) {
    return matrixObstacle(kernel, problem, capabilities, kind === 'matrix_split');
  }
  if (kind === 'subgroup' && !capabilities.subgroups) {
    return 'the device has no subgroups';
  }
  if (kind === 'decode' && problem.queryLength > FEW_QUERIES) {
    return `there are more than ${FEW_QUERIES} queries`;
  }
  return undefined;
}

/** Enough work, in pairs of a query and a key, that turning q, k and v into f16 pays. */
function isLarge({batch, queryHeads, queryLength, keyLength}: Problem, fewestPairs: number): boolean {
  return queryLength >= 32 && batch * queryHeads * queryLength * keyLength >= fewestPairs;
}

/** For products of f16, and for split ones: 2^22 pairs of D = 64 take some 40 µs either way, turning and all. */
const [PAIRS_FOR_MATRIX, PAIRS_FOR_SPLIT] = [2 ** 20, 2 ** 22];

/** Head sizes up to which split operands beat plain arithmetic: past them sums and queries leave the registers. */
const LARGEST_SPLIT = 192;

const splitPays = ({headSize, valueSize}: Problem): boolean => Math.max(headSize, valueSize) <= LARGEST_SPLIT;

/**
 * Whether a call can run by a kind of plan on such a device.
 * @param withGradients the backward kernels can too, and from its LSE.
 */
function canRun(kind: PlanKind, problem: Problem, capabilities: Capabilities, withGradients: boolean): boolean {
  const kernels: readonly KernelName[] = withGradients ? ['forward', ...BACKWARD] : ['forward'];
  return (!withGradients || roundsAsBackward(kind)) && kernels.every(
      kernel => !hasKind(kernel, kind) || obstacle(kernel, kind, problem, capabilities) === undefined);
}

/**
 * The kinds of plans that a call can run by on such a device, the plainest first: what `tune` times. Pure.
 * @param withGradients the backward kernels can too.
 */
export function candidates(problem: Problem, capabilities: Capabilities, withGradients: boolean): PlanKind[] {
  return PLAN_KINDS.filter(kind => canRun(kind, problem, capabilities, withGradients));
}

/** What `tune` found to be fastest, if it did and that can run the problem: its class is wider than the problem. */
function winnerOf(problem: Problem, capabilities: Capabilities, forGradient: boolean): PlanKind|undefined {
  const winner = capabilities.winners?.[problemClass(problem, forGradient)];
  return winner && canRun(winner, problem, capabilities, forGradient) ? winner : undefined;
}

function followForward(kernel: KernelName, forward: Choice, problem: Problem, capabilities: Capabilities): Choice {
  const reason = isMatrixKind(forward.kind) ? obstacle(kernel, forward.kind, problem, capabilities) :
                                              'the forward pass is not by subgroup matrices';
  return reason === undefined ? forward : {kind: 'simt', why: reason};
}

/**
 * The kind of plan that suits the problem best on such a device, and why. Pure.
 * @param forGradient of a forward pass: its LSE is for the backward kernels; see roundsAsBackward.
 */
export function explainChoice(
    kernel: KernelName, problem: Problem, capabilities: Capabilities, forGradient = false): Choice {
  if (followsForward(kernel)) {
    return followForward(kernel, explainChoice('forward', problem, capabilities, true), problem, capabilities);
  }
  const winner = kernel === 'forward' ? winnerOf(problem, capabilities, forGradient) : undefined;
  if (winner) {
    return {kind: winner, why: 'the fastest that tune found'};
  }
  // A forward pass for gradients only if the backward kernels can too: scores must be rounded alike.
  if (hasKind(kernel, 'matrix') && isLarge(problem, PAIRS_FOR_MATRIX) &&
      canRun('matrix', problem, capabilities, forGradient)) {
    return {kind: 'matrix', why: `computeType ${problem.computeType}, and the device has subgroup matrices`};
  }
  if (hasKind(kernel, 'matrix_split') && isLarge(problem, PAIRS_FOR_SPLIT) && splitPays(problem) &&
      canRun('matrix_split', problem, capabilities, forGradient)) {
    return {kind: 'matrix_split', why: `computeType ${problem.computeType}, and the device has subgroup matrices`};
  }
  if (!hasKind(kernel, 'subgroup')) {
    return {kind: 'simt', why: `the only kind of ${kernel}`};
  }
  if (canRun('decode', problem, capabilities, forGradient)) {
    return {kind: 'decode', why: `at most ${FEW_QUERIES} queries`};
  }
  return capabilities.subgroups ?
      {kind: 'subgroup', why: `the device has subgroups of ${capabilities.subgroups.min} and more`} :
      {kind: 'simt', why: 'the device has no subgroups'};
}

/** The kind of plan that suits the problem best on such a device. Pure; test/unit/choose.spec.ts has the table. */
export function choosePlan(kernel: KernelName, problem: Problem, capabilities: Capabilities): PlanKind {
  return explainChoice(kernel, problem, capabilities).kind;
}

let forced: PlanKind|undefined;

/**
 * From now on every kernel that has plans of this kind runs by one, and fails where the device or the problem does not
 * allow it; other kernels run as they would. For tests and for timing plans against each other.
 */
export function forcePlan(kind: PlanKind|undefined): void {
  forced = kind;
}

export const forcedPlan = (): PlanKind|undefined => forced;

/**
 * Whether the scores of a forward pass by such a plan are rounded as the backward kernels round theirs. They must be:
 * P = exp(S − LSE) is off by what the two differ in, and where one key outweighs all others plain attention is exact.
 */
export const roundsAsBackward = (kind: PlanKind): boolean => kind !== 'decode';

/**
 * What is forced, else what is chosen.
 * @param forGradient of a forward pass: only kinds that roundsAsBackward.
 * @throws when the forced kind cannot run the problem.
 */
export function planKind(
    kernel: KernelName, problem: Problem, capabilities: Capabilities, forGradient = false): Choice {
  const isGradient = forGradient || followsForward(kernel);
  if (forced === undefined || !hasKind(kernel, forced) || isGradient && !roundsAsBackward(forced)) {
    // What is forced on the forward pass decides for a backward kernel without plans of that kind too.
    const isDecided = forced !== undefined && roundsAsBackward(forced) && followsForward(kernel);
    return isDecided ? followForward(kernel, {kind: forced!, why: 'forced'}, problem, capabilities) :
                       explainChoice(kernel, problem, capabilities, forGradient);
  }
  const reason = obstacle(kernel, forced, problem, capabilities);
  if (reason !== undefined) {
    throw new Error(`flashAttention: the plan '${forced}' that was forced cannot run this ${kernel}: ${reason}`);
  }
  return {kind: forced, why: 'forced'};
}
