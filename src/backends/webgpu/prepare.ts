import {isLasting, lseShape, rowShape} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {Capabilities} from './capabilities.js';
import {
  explainChoice, followsForward, forcedPlan, isMatrixKind, PLAN_KINDS, planKind, roundsAsBackward,
} from './choose.js';
import type {Choice, PlanKind} from './choose.js';
import {printPlan} from './debug.js';
import {capabilitiesOf, limitsOf, pipelineOf, prepared} from './device.js';
import {KERNEL_NAMES} from './kernel_names.js';
import type {KernelName} from './kernel_names.js';
import {halfShape, matrixShape} from './matrix_plan.js';
import type {HalfName} from './matrix_plan.js';
import {packParams} from './params.js';
import {makePlan} from './plan.js';
import type {Features} from './plan.js';
import {makeSplit} from './splits.js';
import type {Split} from './splits.js';
import {tableLayout, tablePlaces} from './table.js';
import type {TableLayout} from './table.js';
import {headsPerKey, makeWindows, operandsOf, rangeOf} from './windows.js';
import type {OperandName, Range} from './windows.js';
import {grid, workgroupCount} from './workgroups.js';

/** Features that do not follow from the problem, a bit each: what is prepared is found by them in every call. */
export const VARIANT = {
  split: 1, hasLseGradient: 2, wantKeys: 4, wantValues: 8, sharedResult: 16, overQueries: 32, overKeys: 64,
  routed: 128, hasDOutput: 256, again: 512, splitOperands: 1024,
  plain: 2048,
} as const satisfies {readonly [name in keyof Features]?: number};

const VARIANT_BITS = Object.keys(VARIANT).length;

const variantFeatures = (variants: number): Partial<Features> =>
    Object.fromEntries(Object.entries(VARIANT).map(([name, bit]) => [name, (variants & bit) !== 0]));

/** One kernel on one problem, whatever its tensors. */
export interface Task {
  readonly kernel: KernelName;
  readonly problem: Problem;
  /** Bits of VARIANT. */
  readonly variants?: number;
  /** A forward pass whose LSE is for the backward kernels: see `planKind`. */
  readonly forGradient?: boolean;
}

/** One dispatch of it. */
export interface PreparedPart {
  /** Different for every part there is. */
  readonly id: number;
  /** The uniform block: a buffer that stays as it is, or its contents where a call has to bring a buffer. */
  readonly params: GPUBuffer|ArrayBuffer;
  readonly workgroups: readonly [number, number];
  readonly ranges: {readonly [name in OperandName]?: Range};
  readonly table?: TableLayout;
}

/** All that a call of a kernel needs beside its tensors. */
export interface Prepared {
  readonly kind: PlanKind;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly parts: readonly PreparedPart[];
}

/** What is worked out for a problem. */
const RESULTS = ['task', 'kind', 'split', 'halves', 'split halves', 'watches itself'] as const;

/** A number for each result that there can be: a text would have to be put together in every call. */
function resultKey(
    result: typeof RESULTS[number], kernel: KernelName, forGradient: boolean, variants = 0): number {
  const forced = forcedPlan();
  let key = RESULTS.indexOf(result) * KERNEL_NAMES.length + KERNEL_NAMES.indexOf(kernel);
  key = key * (PLAN_KINDS.length + 1) + (forced === undefined ? 0 : 1 + PLAN_KINDS.indexOf(forced));
  return (2 * key + Number(forGradient)) << VARIANT_BITS | variants;
}

const WHOLE: Split = {splits: 1, keys: 0};
const product = (shape: readonly number[]): number => shape.reduce((size, n) => size * n, 1);

let partsMade = 0;

/** The plan of a task, why it is of its kind, and the parts of the problem that it runs on one after the other. */
export function planOf(device: GPUDevice, {kernel, problem, variants = 0, forGradient = false}: Task) {
  const capabilities = capabilitiesOf(device);
  const windows = makeWindows(kernel, problem, capabilities.limits);
  const {kind, why} = variants & (VARIANT.routed | VARIANT.plain) ?
      // One that can tell whether it is its turn, and whose LSE is for the backward kernels as a matrix plan's is.
      explainChoice(kernel, problem, {...capabilities, matrix: []}, true) :
      kindOf(device, kernel, problem, forGradient);
  const most = Math.max(...windows.map(({batches}) => batches));
  return {plan: makePlan(kernel, problem, capabilities, variantFeatures(variants), most, kind), why, windows};
}

function make(device: GPUDevice, task: Task): Prepared {
  const {kernel, problem, forGradient = false} = task;
  const limits = limitsOf(device);
  const {plan, why, windows} = planOf(device, task);
  printPlan(plan, problem, why);
  const pipeline = pipelineOf(device, plan);
  const operands = operandsOf(kernel, problem);
  const split = plan.split || kernel === 'merge_splits' ? splitOf(device, problem, forGradient) : WHOLE;
  const splitStrides = {output: product(rowShape(problem, 'output')), rows: product(lseShape(problem))};
  const parts = windows.map((window): PreparedPart => {
    const params =
        packParams(kernel, problem, window, limits, tablePlaces(kernel, problem, window), split, splitStrides);
    const splits = plan.split ? split.splits : 1;
    return {
      id: partsMade++,
      params: isLasting(problem) && problem.dropoutP === 0 ? fixedBuffer(device, params) : params,
      workgroups: grid(splits * workgroupCount(plan, problem, window, headsPerKey(problem, window)), limits),
      ranges: Object.fromEntries(operands.map(
          operand => [operand.name, rangeOf(operand, problem, window, limits)])),
      table: tableLayout(plan, problem, window),
    };
  });
  return {kind: plan.kind, pipeline, layout: pipeline.getBindGroupLayout(0), parts};
}

function fixedBuffer(device: GPUDevice, contents: ArrayBuffer): GPUBuffer {
  const buffer = device.createBuffer(
      {size: contents.byteLength, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST});
  device.queue.writeBuffer(buffer, 0, contents);
  return buffer;
}

/**
 * Plan, pipeline, windows and uniform blocks of a task: made once for a problem and kept, since a model calls the same
 * few over and over.
 */
export function prepare(device: GPUDevice, task: Task): Prepared {
  const {kernel, problem, variants, forGradient = false} = task;
  return prepared(device, problem, resultKey('task', kernel, forGradient, variants), () => make(device, task));
}

/** What the device offers for a problem: one that a device limit cuts into windows goes without matrices. */
export function capabilitiesFor(device: GPUDevice, kernel: KernelName, problem: Problem): Capabilities {
  const capabilities = capabilitiesOf(device);
  const isWhole = (name: KernelName) => makeWindows(name, problem, capabilities.limits).length === 1;
  return isWhole(kernel) && (!followsForward(kernel) || isWhole('forward')) ? capabilities :
                                                                             {...capabilities, matrix: []};
}

/** The kind of plan that a kernel runs by. */
export function kindOf(device: GPUDevice, kernel: KernelName, problem: Problem, forGradient = false): Choice {
  return prepared(device, problem, resultKey('kind', kernel, forGradient),
      () => planKind(kernel, problem, capabilitiesFor(device, kernel, problem), forGradient));
}

/** How the keys of a forward pass are split: not at all where a device limit cuts the problem into windows already. */
export function splitOf(device: GPUDevice, problem: Problem, forGradient: boolean): Split {
  return prepared(device, problem, resultKey('split', 'forward', forGradient), () => {
    const capabilities = capabilitiesOf(device);
    if (makeWindows('forward', problem, capabilities.limits).length > 1) {
      return WHOLE;
    }
    const {kind} = kindOf(device, 'forward', problem, forGradient);
    return makeSplit(makePlan('forward', problem, capabilities, {}, problem.batch, kind), problem);
  });
}

/** Whether a forward pass of the kind `matrix` makes again by itself what it could not. */
export function forwardWatchesItself(device: GPUDevice, problem: Problem): boolean {
  return prepared(device, problem, resultKey('watches itself', 'forward', false),
      () => makePlan('forward', problem, capabilitiesOf(device), {}, problem.batch, 'matrix').watchesItself);
}

/** Shapes of the operands as f16. */
export function halfShapesOf(
    device: GPUDevice, problem: Problem, splitOperands: boolean): {readonly [name in HalfName]: number[]} {
  return prepared(device, problem, resultKey(splitOperands ? 'split halves' : 'halves', 'to_half', false), () => {
    const shape = matrixShape(capabilitiesOf(device))!;
    const of = (name: HalfName) => halfShape(problem, shape, name, splitOperands);
    return {q: of('q'), k: of('k'), v: of('v'), dOutput: of('dOutput')};
  });
}

/** Whether the backward kernels can start from the LSE that a forward pass left, or need one made for them. */
export function canStartFromLse(device: GPUDevice, problem: Problem, forGradient: boolean): boolean {
  const {kind} = kindOf(device, 'forward', problem, forGradient);
  const backward = kindOf(device, 'backward_dq', problem).kind;
  return roundsAsBackward(kind) && (kind === backward || !isMatrixKind(kind) && !isMatrixKind(backward));
}
