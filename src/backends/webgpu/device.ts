import type {Problem} from '../../op/problem.js';
import {Recent} from '../../op/recent.js';

import {extensionsOf} from './capabilities.js';
import type {Capabilities, DeviceLimits} from './capabilities.js';
import {planKey} from './plan.js';
import type {Plan} from './plan.js';
import {specialise} from './specialise.js';

/** A bind group, and what is in it. */
interface KnownBindGroup {
  readonly part: number;
  readonly buffers: readonly GPUBuffer[];
  readonly group: GPUBindGroup;
}

/** What is remembered about a device: what was made for it, and what has gone wrong on it. */
interface DeviceState {
  readonly pipelines: Map<string, GPUComputePipeline>;
  /** Pipelines on their way. */
  readonly compiling: Map<string, Promise<void>>;
  readonly bindGroups: Recent<number, KnownBindGroup>;
  limits: DeviceLimits;
  /** What was worked out for a problem under these limits, by what it is. It goes when the problem goes. */
  prepared: WeakMap<Problem, Map<number, unknown>>;
  lost?: GPUDeviceLostInfo;
  /** A kernel that this device refused to compile: every result of it is undefined. */
  broken?: string;
  /** An allocation that failed since the last call. */
  outOfMemory?: string;
}

const states = new WeakMap<GPUDevice, DeviceState>();

/**
 * A step of training has a few for each layer, times the buffers that tfjs' pool hands out in turn. They hold on to
 * buffers, but to none that is destroyed or would otherwise be freed: the pool keeps its buffers for ever.
 */
export const MOST_BIND_GROUPS = 2048;

/** The limits as plain numbers: reading one of the device's own is a call into it. */
function readLimits(device: GPUDevice): DeviceLimits {
  const limits: Record<string, number> = {};
  for (const name in device.limits) {
    const value = device.limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') {
      limits[name] = value;
    }
  }
  return limits as unknown as DeviceLimits;
}

function stateOf(device: GPUDevice): DeviceState {
  let state = states.get(device);
  if (!state) {
    const created: DeviceState = {
      pipelines: new Map(), compiling: new Map(), bindGroups: new Recent(MOST_BIND_GROUPS), limits: readLimits(device),
      prepared: new WeakMap(),
    };
    states.set(device, created);
    void device.lost.then(info => {
      created.lost = info;
    });
    // Not an error scope around each allocation: in Node a scope costs as much as the rest of a call (NOTES.md).
    device.addEventListener('uncapturederror', event => {
      const {error} = event as GPUUncapturedErrorEvent;
      if (error instanceof GPUOutOfMemoryError) {
        created.outOfMemory = 'flashAttention: the WebGPU device ran out of memory ' +
            `(${error.message.split('\n')[0]}); results since then are undefined. ` +
            'Free tensors, or use a smaller batch or length';
        console.error(created.outOfMemory);
      }
    });
    state = created;
  }
  return state;
}

/**
 * WebGPU reports most failures after the call that caused them has returned. They are put on the console when they
 * arrive, and thrown by the next call on the device.
 * @throws when the device is lost, refused a kernel, or ran out of memory since the last call.
 */
export function checkDevice(device: GPUDevice): void {
  const state = stateOf(device);
  if (state.lost) {
    throw new Error(
        `flashAttention: the WebGPU device was lost (${state.lost.reason}: ${state.lost.message || 'no message'}); ` +
        'its tensors are gone. Call `await enableWebGPU()` for a new one, put saved weights back ' +
        '(model.setWeights) and make optimizers anew, or continue on another backend');
  }
  if (state.broken) {
    throw new Error(state.broken);
  }
  if (state.outOfMemory) {
    const message = state.outOfMemory;
    state.outOfMemory = undefined;
    throw new OutOfMemoryError(message);
  }
}

export class OutOfMemoryError extends Error {}

/** Whether the device is lost, as far as WebGPU has said so. */
export async function isLost(device: GPUDevice): Promise<boolean> {
  // A promise that is settled wins against one that settles later.
  return await Promise.race([device.lost, Promise.resolve()]) !== undefined;
}

const LOSS_COMES_MS = 100;

/** Waits for the news that the device is lost, which comes a little later than what fails because of it. */
export async function awaitLoss(device: GPUDevice): Promise<void> {
  await Promise.race([device.lost, new Promise(resolve => setTimeout(resolve, LOSS_COMES_MS))]);
}

/** @throws when a tensor of this many bytes cannot exist on the device. */
export function checkSize(limits: DeviceLimits, name: string, bytes: number): void {
  if (bytes > limits.maxBufferSize) {
    throw new Error(
        `flashAttention: ${name} takes ${bytes} bytes, over the WebGPU limit maxBufferSize ` +
        `(${limits.maxBufferSize}); ` +
        'split the batch or the heads over several calls');
  }
}

export function limitsOf(device: GPUDevice): DeviceLimits {
  return stateOf(device).limits;
}

/** What a device offers: its extensions, and its limits or those that it pretends to have. */
export function capabilitiesOf(device: GPUDevice): Capabilities {
  return {limits: limitsOf(device), ...extensionsOf(device)};
}

/** For tests: has the device pass for one with smaller limits, or again for what it is. */
export function pretendLimits(device: GPUDevice, smaller: Partial<DeviceLimits> = {}): void {
  const state = stateOf(device);
  state.limits = {...readLimits(device), ...smaller};
  forgetPrepared(device);
}

/** Forgets what was worked out for problems, but no pipeline: something that it follows from has changed. */
export function forgetPrepared(device: GPUDevice): void {
  stateOf(device).prepared = new WeakMap();
}

/** What `make` gives for a problem, made once as long as the problem lives and the limits stay. */
export function prepared<T>(device: GPUDevice, problem: Problem, what: number, make: () => T): T {
  const all = stateOf(device).prepared;
  let ofProblem = all.get(problem);
  if (!ofProblem) {
    ofProblem = new Map();
    all.set(problem, ofProblem);
  }
  let value = ofProblem.get(what) as T|undefined;
  if (value === undefined) {
    value = make();
    ofProblem.set(what, value);
  }
  return value;
}

/** 2^32 by the golden ratio, odd: sums of its small multiples and small numbers differ. */
const HASH_FACTOR = 0x9e3779b1;

const bufferIds = new WeakMap<GPUBuffer, number>();
let buffersSeen = 0;

/** A number for each buffer there ever was. */
function bufferId(buffer: GPUBuffer): number {
  let id = bufferIds.get(buffer);
  if (id === undefined) {
    id = buffersSeen++;
    bufferIds.set(buffer, id);
  }
  return id;
}

/**
 * The bind group of these buffers, made once.
 * @param part tells its layout, and what each buffer is bound to and how much of it.
 */
export function bindGroupOf(
    device: GPUDevice, part: number, buffers: readonly GPUBuffer[], make: () => GPUBindGroup): GPUBindGroup {
  let hash = HASH_FACTOR + part | 0; // not the part alone: a small number might be a buffer's
  for (const buffer of buffers) {
    hash = Math.imul(hash, HASH_FACTOR) + bufferId(buffer) | 0;
  }
  const known = stateOf(device).bindGroups.get(hash, () => ({part, buffers, group: make()}));
  const isIt = known.part === part && known.buffers.length === buffers.length &&
      buffers.every((buffer, n) => buffer === known.buffers[n]);
  return isIt ? known.group : make(); // two of the same number: hardly ever
}

/** How much is kept for a device; for tests, and for whoever wonders. */
export function keptSizes(device: GPUDevice): Record<string, number> {
  const {pipelines, compiling, bindGroups} = stateOf(device);
  return {pipelines: pipelines.size, compiling: compiling.size, bindGroups: bindGroups.size};
}

/** What is wrong with a kernel: in one line, and with every message and the whole shader. */
async function explainFailure(module: GPUShaderModule, code: string, plan: Plan, reason: string) {
  const {messages} = await module.getCompilationInfo();
  const list = messages.map(m => `${m.lineNum}:${m.linePos} ${m.message}`).join('\n');
  const numbered = code.split('\n').map((line, n) => `${String(n + 1).padStart(4)} ${line}`).join('\n');
  const what = `flashAttention: the ${plan.kernel} kernel does not compile on this WebGPU device`;
  return {short: `${what} (${(list || reason).split('\n')[0]})`, long: `${what}: ${reason}\n${list}\n${numbered}`};
}

function shaderOf(device: GPUDevice, plan: Plan) {
  const code = specialise(plan);
  const label = `flashAttention ${plan.kernel}`;
  const module = device.createShaderModule({label, code});
  return {code, module, descriptor: {label, layout: 'auto', compute: {module, entryPoint: 'main'}} as const};
}

/** The pipeline of a plan, compiled once a device. */
export function pipelineOf(device: GPUDevice, plan: Plan): GPUComputePipeline {
  const state = stateOf(device);
  const key = planKey(plan);
  let pipeline = state.pipelines.get(key);
  if (!pipeline) {
    device.pushErrorScope('internal');
    device.pushErrorScope('validation');
    const {code, module, descriptor} = shaderOf(device, plan);
    pipeline = device.createComputePipeline(descriptor);
    void Promise.all([device.popErrorScope(), device.popErrorScope()]).then(async ([validation, internal]) => {
      const error = validation ?? internal;
      if (error) {
        const {short, long} = await explainFailure(module, code, plan, error.message);
        console.error(long);
        state.broken = `${short}; results are undefined. Use another backend`;
      }
    }, () => undefined);
    state.pipelines.set(key, pipeline);
  }
  return pipeline;
}

async function compile(device: GPUDevice, plan: Plan): Promise<GPUComputePipeline> {
  // What is wrong with a module comes out when its pipeline is made; this keeps it from the console before.
  device.pushErrorScope('validation');
  const {code, module, descriptor} = shaderOf(device, plan);
  device.popErrorScope().catch(() => undefined);
  try {
    return await device.createComputePipelineAsync(descriptor);
  } catch (error) {
    checkDevice(device);
    throw new Error((await explainFailure(module, code, plan, (error as Error).message)).long);
  }
}

/**
 * Compiles the pipeline of a plan in the background, unless it is there or on its way. {@link pipelineOf} does not wait
 * for it: it cannot, and makes its own.
 * @throws where it does not compile, with line, column and the whole shader.
 */
export function compilePipeline(device: GPUDevice, plan: Plan): Promise<void> {
  const {pipelines, compiling} = stateOf(device);
  const key = planKey(plan);
  if (pipelines.has(key)) {
    return Promise.resolve();
  }
  let done = compiling.get(key);
  if (!done) {
    done = compile(device, plan).then(pipeline => {
      if (!pipelines.has(key)) {
        pipelines.set(key, pipeline);
      }
    }).finally(() => compiling.delete(key));
    compiling.set(key, done);
  }
  return done;
}
