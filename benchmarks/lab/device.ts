/** What the programs of the lab share: a device of their own, buffers, and GPU time from timestamp queries. */
import {create, globals} from 'webgpu';

import {noteAdapter} from '../../src/backends/webgpu/capabilities.js';
import {packParams} from '../../src/backends/webgpu/params.js';
import type {Plan} from '../../src/backends/webgpu/plan.js';
import {specialise} from '../../src/backends/webgpu/specialise.js';
import type {Split} from '../../src/backends/webgpu/splits.js';
import {headsPerKey, makeWindows} from '../../src/backends/webgpu/windows.js';
import {grid, workgroupCount} from '../../src/backends/webgpu/workgroups.js';
import type {Problem} from '../../src/op/problem.js';

/** GPU time of a dispatch in milliseconds, the median of five, and how far they lie apart. */
export interface Timing {
  readonly ms: number;
  readonly spread: number;
}

/** A pipeline with all it is bound to. */
export interface Ready {
  readonly compileMs: number;
  readonly dispatch: (pass: GPUComputePassEncoder) => void;
}

const WARM_UP_MS = 250;
const SAMPLES = 5;

export type Lab = Awaited<ReturnType<typeof openLab>>;

/** @param dawn Dawn's switches, comma-separated. */
export async function openLab(dawn: string) {
  Object.assign(globalThis, globals);
  const gpu = create([`enable-dawn-features=${dawn}`, 'disable-dawn-features=timestamp_quantization']);
  const adapter = await gpu.requestAdapter({powerPreference: 'high-performance'});
  if (!adapter) {
    throw new Error('no WebGPU adapter');
  }
  const {limits} = adapter;
  const wanted = [
    'timestamp-query', 'subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix',
  ] as GPUFeatureName[];
  const device = await adapter.requestDevice({
    requiredFeatures: wanted.filter(name => adapter.features.has(name)),
    requiredLimits: {
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxBufferSize: limits.maxBufferSize,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    },
  });
  noteAdapter(device, adapter.info);
  device.addEventListener('uncapturederror', event => {
    console.log('device error:', (event as GPUUncapturedErrorEvent).error.message.slice(0, 500));
  });
  const querySet = device.createQuerySet({type: 'timestamp', count: 2});
  const resolve = device.createBuffer({size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
  const staging = device.createBuffer({size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});

  const emptyBuffer = (bytes: number): GPUBuffer => device.createBuffer(
      {size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC});

  const bufferWith = (values: Float32Array): GPUBuffer => {
    const buffer = emptyBuffer(values.byteLength);
    device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    return buffer;
  };

  async function read(buffer: GPUBuffer, bytes: number): Promise<Float32Array> {
    const target = device.createBuffer({size: bytes, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, target, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await target.mapAsync(GPUMapMode.READ);
    const values = new Float32Array(target.getMappedRange().slice(0));
    target.destroy();
    return values;
  }

  /** Milliseconds that the GPU takes for each of `times` runs of `work`. */
  async function timeOnce(work: (pass: GPUComputePassEncoder) => void, times: number): Promise<number> {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass(
        {timestampWrites: {querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1}});
    for (let n = 0; n < times; n++) {
      work(pass);
    }
    pass.end();
    encoder.resolveQuerySet(querySet, 0, 2, resolve, 0);
    encoder.copyBufferToBuffer(resolve, 0, staging, 0, 16);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const [begin, end] = new BigUint64Array(staging.getMappedRange().slice(0));
    staging.unmap();
    return Number(end - begin) / 1e6 / times;
  }

  /** The clocks warmed up right before; a sample lasts about `sampleMs`. */
  async function time(
      work: (pass: GPUComputePassEncoder) => void, sampleMs = 60, warmUpMs = WARM_UP_MS): Promise<Timing> {
    const first = await timeOnce(work, 1);
    const times = Math.max(1, Math.min(2000, Math.ceil(sampleMs / first)));
    const start = performance.now();
    while (performance.now() - start < warmUpMs) {
      await timeOnce(work, times);
    }
    const samples: number[] = [];
    for (let n = 0; n < SAMPLES; n++) {
      samples.push(await timeOnce(work, times));
    }
    samples.sort((a, b) => a - b);
    const ms = samples[Math.floor(SAMPLES / 2)];
    return {ms, spread: (samples[SAMPLES - 1] - samples[0]) / ms};
  }

  const compiled = new Map<string, Promise<{pipeline: GPUComputePipeline, compileMs: number}>>();

  /** Once for each text. */
  function compile(code: string): Promise<{pipeline: GPUComputePipeline, compileMs: number}> {
    const known = compiled.get(code) ?? compileAnew(code);
    compiled.set(code, known);
    return known;
  }

  async function compileAnew(code: string): Promise<{pipeline: GPUComputePipeline, compileMs: number}> {
    const module = device.createShaderModule({code});
    const start = performance.now();
    const pipeline = await device.createComputePipelineAsync({layout: 'auto', compute: {module, entryPoint: 'main'}});
    return {pipeline, compileMs: performance.now() - start};
  }

  function bind(pipeline: GPUComputePipeline, buffers: ReadonlyArray<readonly [number, GPUBuffer]>): GPUBindGroup {
    const entries = buffers.map(([binding, buffer]) => ({binding, resource: {buffer}}));
    return device.createBindGroup({layout: pipeline.getBindGroupLayout(0), entries});
  }

  /**
   * A plan over a problem that fits one window, ready to run.
   * @param bound buffers by @binding; several sets of them take turns from run to run.
   */
  async function prepare(
      plan: Plan, problem: Problem, bound: ReadonlyArray<ReadonlyMap<number, GPUBuffer>>,
      split: Split = {splits: 1, keys: 0}, splitStrides = {output: 0, rows: 0}): Promise<Ready> {
    const windows = makeWindows(plan.kernel, problem, device.limits);
    if (windows.length !== 1) {
      throw new Error('the problem does not fit one window');
    }
    const [window] = windows;
    const {pipeline, compileMs} = await compile(specialise(plan));
    const contents = packParams(
        plan.kernel, problem, window, device.limits, {slopes: 0, slopesBatch: 0, sinks: 0, sequences: 0},
        split, splitStrides);
    const uniforms = device.createBuffer(
        {size: contents.byteLength, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST});
    device.queue.writeBuffer(uniforms, 0, contents);
    const groups = bound.map(buffers => bind(pipeline, [[0, uniforms], ...buffers]));
    const parts = plan.split ? split.splits : 1;
    const workgroups = grid(
        parts * workgroupCount(plan, problem, window, headsPerKey(problem, window)), device.limits);
    let turn = 0;
    return {
      compileMs,
      dispatch: pass => {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, groups[turn++ % groups.length]);
        pass.dispatchWorkgroups(...workgroups);
      },
    };
  }

  return {
    adapter, device, limits, bufferWith, emptyBuffer, read, timeOnce, time, compile, bind, prepare,
    /** Dawn ends with it. */
    gpu,
  };
}

/** Numbers near enough to normal for timing, and quick for 10⁸ of them: sums of uniforms. */
export function random(length: number): Float32Array {
  const values = new Float32Array(length);
  let state = 12345;
  for (let i = 0; i < length; i++) {
    let sum = -3;
    for (let n = 0; n < 6; n++) {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      sum += state / 2 ** 32;
    }
    values[i] = sum * Math.SQRT2;
  }
  return values;
}

/** The largest difference; NaN counts as infinite. */
export function difference(actual: Float32Array, expected: Float32Array): number {
  return actual.reduce((most, x, i) => {
    const apart = Math.abs(x - expected[i]);
    return apart <= most ? most : Number.isNaN(apart) ? Infinity : apart;
  }, 0);
}
