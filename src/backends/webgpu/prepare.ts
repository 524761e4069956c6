import type {Problem} from '../../op/problem.js';

import {kept, pipelineOf} from './device.js';
import {packParams} from './params.js';
import type {SplitStrides} from './params.js';
import {grid, makePlan, makeSplit, workgroupCount} from './plan.js';
import type {DeviceLimits, Features, KernelName, Plan, Split} from './plan.js';
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

/** The plan of a task, and the parts of the problem that it runs on one after the other. */
export function planOf(device: GPUDevice, {kernel, problem, features}: Task): {plan: Plan, windows: Window[]} {
  const limits: DeviceLimits = device.limits;
  const windows = makeWindows(kernel, problem, limits);
  return {windows, plan: makePlan(kernel, problem, limits, features, Math.max(...windows.map(({batches}) => batches)))};
}

function make(device: GPUDevice, task: Task, keepsParams: boolean): Prepared {
  const {kernel, problem, split = WHOLE, splitStrides = {output: 0, rows: 0}} = task;
  const limits: DeviceLimits = device.limits;
  const {plan, windows} = planOf(device, task);
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

/** A problem, and the limits that tests make smaller on a device that stays the same, in one string. */
function keyOf(problem: Problem, limits: DeviceLimits): string {
  let key = problemKeys.get(problem);
  if (key === undefined) {
    key = JSON.stringify(problem);
    problemKeys.set(problem, key);
  }
  return `${key} ${limits.maxComputeWorkgroupStorageSize} ${limits.maxComputeInvocationsPerWorkgroup} ` +
      `${limits.maxComputeWorkgroupsPerDimension} ${limits.maxStorageBufferBindingSize}`;
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
  const key = `${kernel} ${JSON.stringify([features, split, splitStrides])} ${keyOf(problem, device.limits)}`;
  return kept(device, key, () => make(device, task, true));
}

/** How the keys of a forward pass are split: not at all where a device limit cuts the problem into windows already. */
export function splitOf(device: GPUDevice, problem: Problem): Split {
  const limits: DeviceLimits = device.limits;
  const split = () => makeWindows('forward', problem, limits).length === 1 ?
      makeSplit(makePlan('forward', problem, limits), problem) :
      WHOLE;
  return isKept(problem) ? kept(device, `split ${keyOf(problem, limits)}`, split) : split();
}
