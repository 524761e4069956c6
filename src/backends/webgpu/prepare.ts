import type {Problem} from '../../op/problem.js';

import {capabilitiesOf} from './capabilities.js';
import type {DeviceLimits} from './capabilities.js';
import {forcedPlan, planKind, roundsAsBackward} from './choose.js';
import {printPlan} from './debug.js';
import {kept, pipelineOf} from './device.js';
import {packParams} from './params.js';
import type {SplitStrides} from './params.js';
import {grid, makePlan, makeSplit, workgroupCount} from './plan.js';
import type {Features, KernelName, Plan, Split} from './plan.js';
import {tablePlaces} from './table.js';
import {headsPerKey, makeWindows, operandsOf, rangeOf} from './windows.js';
import type {OperandName, Range, Window} from './windows.js';

/** One kernel on one problem, whatever its tensors. */
export interface Task {
  readonly kernel: KernelName;
  readonly problem: Problem;
  readonly features?: Partial<Features>;
  readonly split?: Split;
  readonly splitStrides?: SplitStrides;
  /** A forward pass whose LSE is for the backward kernels: see `planKind`. */
  readonly forGradient?: boolean;
}

/** One dispatch of it. */
export interface PreparedPart {
  readonly window: Window;
  /** The uniform block: a buffer that stays as it is, or its contents where they change from call to call. */
  readonly params: GPUBuffer|ArrayBuffer;
  readonly workgroups: readonly [number, number];
  readonly ranges: {readonly [name in OperandName]?: Range};
}

/** All that a call of a kernel needs beside its tensors. */
export interface Prepared {
  readonly plan: Plan;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly parts: readonly PreparedPart[];
}

const WHOLE: Split = {splits: 1, keys: 0};

function make(device: GPUDevice, task: Task, keepsParams: boolean): Prepared {
  const {kernel, problem, split = WHOLE, splitStrides = {output: 0, rows: 0}} = task;
  const capabilities = capabilitiesOf(device);
  const {limits} = capabilities;
  const windows = makeWindows(kernel, problem, limits);
  const {kind, why} = planKind(kernel, problem, capabilities, task.forGradient);
  const most = Math.max(...windows.map(({batches}) => batches));
  const plan = makePlan(kernel, problem, capabilities, task.features, most, kind);
  printPlan(plan, problem, why);
  const pipeline = pipelineOf(device, plan);
  const operands = operandsOf(kernel, problem);
  const parts = windows.map((window): PreparedPart => {
    const params =
        packParams(kernel, problem, window, limits, tablePlaces(kernel, problem, window), split, splitStrides);
    const splits = plan.split ? split.splits : 1;
    return {
      window,
      params: keepsParams ? fixedBuffer(device, params) : params,
      workgroups: grid(splits * workgroupCount(plan, problem, window, headsPerKey(problem, window)), limits),
      ranges: Object.fromEntries(operands.map(
          operand => [operand.name, rangeOf(operand, problem, window, limits)])),
    };
  });
  return {plan, pipeline, layout: pipeline.getBindGroupLayout(0), parts};
}

function fixedBuffer(device: GPUDevice, contents: ArrayBuffer): GPUBuffer {
  const buffer = device.createBuffer(
      {size: contents.byteLength, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST});
  device.queue.writeBuffer(buffer, 0, contents);
  return buffer;
}

const problemKeys = new WeakMap<Problem, string>();

/** A problem, and what tests change on a device that stays the same (limits, the kind of plan), in one string. */
function keyOf(problem: Problem, limits: DeviceLimits): string {
  let key = problemKeys.get(problem);
  if (key === undefined) {
    key = JSON.stringify(problem);
    problemKeys.set(problem, key);
  }
  return `${key} ${limits.maxComputeWorkgroupStorageSize} ${limits.maxComputeInvocationsPerWorkgroup} ` +
      `${limits.maxComputeWorkgroupsPerDimension} ${limits.maxStorageBufferBindingSize} ${forcedPlan() ?? ''}`;
}

/** Dropout seeds and the offsets of end-to-end sequences are new with every call: nothing is kept of those problems. */
const isKept = (problem: Problem): boolean => problem.dropoutP === 0 && problem.queryOffsets === undefined;

/**
 * Plan, pipeline, windows and uniform blocks of a task: made once for a problem and kept, since a model calls the same
 * few over and over.
 */
export function prepare(device: GPUDevice, task: Task): Prepared {
  const {kernel, problem, features, split, splitStrides} = task;
  if (!isKept(problem)) {
    return make(device, task, false);
  }
  const variant = JSON.stringify([features, split, splitStrides, task.forGradient]);
  const key = `${kernel} ${variant} ${keyOf(problem, device.limits)}`;
  return kept(device, key, () => make(device, task, true));
}

/** How the keys of a forward pass are split: not at all where a device limit cuts the problem into windows already. */
export function splitOf(device: GPUDevice, problem: Problem, forGradient: boolean): Split {
  const capabilities = capabilitiesOf(device);
  const {limits} = capabilities;
  const split = () => {
    if (makeWindows('forward', problem, limits).length > 1) {
      return WHOLE;
    }
    const {kind} = planKind('forward', problem, capabilities, forGradient);
    return makeSplit(makePlan('forward', problem, capabilities, {}, problem.batch, kind), problem);
  };
  return isKept(problem) ? kept(device, `split ${forGradient} ${keyOf(problem, limits)}`, split) : split();
}

/** Whether the backward kernels can start from the LSE that a forward pass left, or need one made for them. */
export function canStartFromLse(device: GPUDevice, problem: Problem): boolean {
  return roundsAsBackward(planKind('forward', problem, capabilitiesOf(device)).kind);
}
