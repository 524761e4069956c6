/**
 * Times the WGSL kernels one by one under different plans, without tfjs: what the choice in
 * src/backends/webgpu/plan.ts rests on. GPU time from timestamp queries, the clocks warmed up right before each.
 *
 *   npx tsx benchmarks/kernel_lab.ts --kernels forward,backward_dq --sizes 64,128 --blockings 16x8x8,16x8x4:4:16
 *
 * A blocking is threadsX x threadsY x rows[:chunk[:rowChunk]]; without any, the plan's own choice is timed.
 */
import {parseArgs} from 'node:util';

import {create, globals} from 'webgpu';

import {capabilitiesOf} from '../src/backends/webgpu/device.js';
import {makePlan, derive, grid, workgroupBytes, workgroupCount} from '../src/backends/webgpu/plan.js';
import type {Plan} from '../src/backends/webgpu/plan.js';
import {packParams} from '../src/backends/webgpu/params.js';
import {specialise} from '../src/backends/webgpu/specialise.js';
import {headsPerKey, makeWindows} from '../src/backends/webgpu/windows.js';
import {makeProblem} from '../src/op/problem.js';
import type {Problem} from '../src/op/problem.js';

const {values: args} = parseArgs({options: {
  kernels: {type: 'string', default: 'forward,backward_dq,backward_dkv'},
  sizes: {type: 'string', default: '64,128'},
  tokens: {type: 'string', default: '16384'},
  length: {type: 'string', default: '4096'},
  width: {type: 'string', default: '2048'},
  causal: {type: 'boolean', default: false},
  blockings: {type: 'string', default: ''},
  dawn: {type: 'string', default: 'allow_unsafe_apis'},
  label: {type: 'string', default: ''},
}});

Object.assign(globalThis, globals);
const gpu = create([`enable-dawn-features=${args.dawn}`]);
const adapter = await gpu.requestAdapter({powerPreference: 'high-performance'});
if (!adapter) {
  throw new Error('no WebGPU adapter');
}
const {limits} = adapter;
const device = await adapter.requestDevice({
  requiredFeatures: ['timestamp-query'],
  requiredLimits: {
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxBufferSize: limits.maxBufferSize,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
  },
});
device.addEventListener('uncapturederror', event => {
  console.log('device error:', (event as GPUUncapturedErrorEvent).error.message.slice(0, 500));
});

const random = (length: number) => {
  const values = new Float32Array(length);
  let state = 12345;
  for (let i = 0; i < length; i++) {
    // Sum of uniforms: near enough to normal for timing, and quick for 10⁸ numbers.
    let sum = -3;
    for (let n = 0; n < 6; n++) {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      sum += state / 2 ** 32;
    }
    values[i] = sum * Math.SQRT2;
  }
  return values;
};

function bufferWith(values: Float32Array): GPUBuffer {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffer = device.createBuffer({size: values.byteLength, usage});
  device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
  return buffer;
}

interface Data {
  problem: Problem;
  /** By @binding. */
  buffers: Map<number, GPUBuffer>;
  /** Elements of q, k, v, dO and of each result. */
  elements: number;
}

function makeData(headSize: number): Data {
  const length = Number(args.length);
  const heads = Number(args.width) / headSize;
  const batch = Math.max(1, Number(args.tokens) / length);
  const shape = [batch, length, heads, headSize];
  const problem = makeProblem({q: {shape}, k: {shape}, v: {shape}}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: args.causal ? 0 : -1,
    softmaxScale: 1 / Math.sqrt(headSize), softcap: 0, dropoutP: 0, seed: 0, computeType: 'float32',
  });
  const elements = batch * length * heads * headSize;
  const buffers = new Map<number, GPUBuffer>();
  const values = random(elements);
  for (const binding of [1, 2, 3, 4]) {
    buffers.set(binding, bufferWith(values.subarray(0)));
  }
  return {problem, buffers, elements};
}

interface Timing {
  ms: number;
  spread: number;
}

const querySet = device.createQuerySet({type: 'timestamp', count: 2});
const resolve = device.createBuffer({size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
const staging = device.createBuffer({size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});

async function timePass(dispatch: (pass: GPUComputePassEncoder) => void, times: number): Promise<number> {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass(
      {timestampWrites: {querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1}});
  for (let n = 0; n < times; n++) {
    dispatch(pass);
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

async function time(dispatch: (pass: GPUComputePassEncoder) => void): Promise<Timing> {
  const first = await timePass(dispatch, 1);
  const times = Math.max(1, Math.min(200, Math.ceil(60 / first)));
  const start = performance.now();
  while (performance.now() - start < 250) {
    await timePass(dispatch, times);
  }
  const samples: number[] = [];
  for (let n = 0; n < 5; n++) {
    samples.push(await timePass(dispatch, times));
  }
  samples.sort((a, b) => a - b);
  return {ms: samples[2], spread: (samples[4] - samples[0]) / samples[2]};
}

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

type LabKernel = 'forward'|'row_statistics'|'backward_dq'|'backward_dkv';

/** Bindings of each kernel; see src/backends/webgpu/kernels.ts. */
const BINDINGS: Record<LabKernel, number[]> = {
  forward: [1, 2, 3, 6, 9, 10],
  row_statistics: [4, 5, 9, 10, 11, 12],
  backward_dq: [1, 2, 3, 4, 6, 9],
  backward_dkv: [1, 2, 3, 4, 6, 7, 9],
};

async function prepare(plan: Plan, data: Data, buffers: Map<number, GPUBuffer>) {
  const {problem} = data;
  const windows = makeWindows(plan.kernel, problem, device.limits);
  if (windows.length !== 1) {
    throw new Error('the problem does not fit one window');
  }
  const module = device.createShaderModule({code: specialise(plan)});
  const start = performance.now();
  const pipeline = await device.createComputePipelineAsync({layout: 'auto', compute: {module, entryPoint: 'main'}});
  const compileMs = performance.now() - start;
  const contents = packParams(
      plan.kernel, problem, windows[0], device.limits, {slopes: 0, slopesBatch: 0, sinks: 0, sequences: 0},
      {splits: 1, keys: 0}, {output: 0, rows: 0});
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const uniforms = device.createBuffer({size: contents.byteLength, usage});
  device.queue.writeBuffer(uniforms, 0, contents);
  const entries = [{binding: 0, resource: {buffer: uniforms}}, ...BINDINGS[plan.kernel as LabKernel].map(
      binding => ({binding, resource: {buffer: buffers.get(binding)!}}))];
  const bindGroup = device.createBindGroup({layout: pipeline.getBindGroupLayout(0), entries});
  const workgroups = grid(
      workgroupCount(plan, problem, windows[0], headsPerKey(problem, windows[0])), device.limits);
  return {
    compileMs,
    dispatch: (pass: GPUComputePassEncoder) => {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(...workgroups);
    },
  };
}

/** Multiply-adds of a kernel in units of B·Hq·Nq·Nk·D. */
const PRODUCTS: Record<LabKernel, number> = {forward: 2, row_statistics: 0, backward_dq: 3, backward_dkv: 4};

function candidates(kernel: LabKernel, problem: Problem): Plan[] {
  const own = makePlan(kernel, problem, capabilitiesOf(device), {wantKeys: true, wantValues: true});
  if (!args.blockings) {
    return [own];
  }
  return args.blockings.split(',').map(text => {
    const [shape, chunk, rowChunk] = text.split(':');
    const [threadsX, threadsY, rows] = shape.split('x').map(Number);
    return {
      ...own, threadsX, threadsY, rows, chunk: Number(chunk ?? own.chunk), rowChunk: Number(rowChunk ?? own.rowChunk),
    };
  });
}

console.log(`${adapter.info.vendor} ${adapter.info.architecture} ${adapter.info.description}; ` +
            `tokens ${args.tokens} length ${args.length} causal ${args.causal} dawn ${args.dawn} ${args.label}`);
for (const headSize of args.sizes.split(',').map(Number)) {
  const data = makeData(headSize);
  const {problem, buffers, elements} = data;
  const rows = problem.batch * problem.queryHeads * problem.queryLength;
  const empty = (length: number) => bufferWith(new Float32Array(length));
  const output = empty(elements);
  const lse = empty(rows);
  const lseTail = empty(rows);
  const statistics = empty(4 * rows);
  // The backward kernels start from a real forward pass.
  const forwardBuffers = new Map([...buffers, [6, output], [9, lse], [10, lseTail]] as const);
  const forward = await prepare(makePlan('forward', problem, capabilitiesOf(device)), data, forwardBuffers);
  await timePass(forward.dispatch, 1);
  const statisticsPlan = makePlan('row_statistics', problem, capabilitiesOf(device));
  const rowStatistics = await prepare(
      statisticsPlan, data,
      new Map([...buffers, [5, output], [9, lse], [10, lseTail], [11, lse], [12, statistics]] as const));
  await timePass(rowStatistics.dispatch, 1);
  console.log(`D=${headSize} row_statistics ${(await time(rowStatistics.dispatch)).ms.toFixed(3)} ms`);

  const results = [empty(elements), empty(elements)];
  for (const kernel of args.kernels.split(',') as LabKernel[]) {
    const own: Array<[number, GPUBuffer]> = kernel === 'forward' ?
        [[6, results[0]], [9, lse], [10, lseTail]] :
        [[6, results[0]], [7, results[1]], [9, statistics]];
    const bound = new Map([...buffers, ...own]);
    let expected: Float32Array|undefined;
    for (const plan of candidates(kernel, problem)) {
      const name = `${plan.threadsX}x${plan.threadsY}x${plan.rows}:${plan.chunk}:${plan.rowChunk}`;
      const bytes = workgroupBytes(plan);
      const {threads} = derive(plan);
      if (bytes > limits.maxComputeWorkgroupStorageSize || threads > limits.maxComputeInvocationsPerWorkgroup ||
          (kernel === 'backward_dkv' && plan.threadsX % plan.threadsY !== 0)) {
        continue;
      }
      try {
        const ready = await prepare(plan, data, bound);
        const {ms, spread} = await time(ready.dispatch);
        const checked = await read(results[0], Math.min(elements * 4, 2 ** 24));
        expected ??= checked;
        const difference = checked.reduce((most, x, i) => Math.max(most, Math.abs(x - expected![i])), 0);
        const flops = 2 * PRODUCTS[kernel] * problem.batch * problem.queryHeads * problem.queryLength ** 2 * headSize /
            (args.causal ? 2 : 1);
        console.log(
            `D=${headSize} ${kernel.padEnd(13)} ${name.padEnd(14)} ${String(bytes).padStart(6)} B ` +
            `${ms.toFixed(3).padStart(9)} ms ±${(100 * spread).toFixed(0)}% ` +
            `${(flops / ms / 1e9).toFixed(2).padStart(6)} TFLOP/s ` +
            `compile ${ready.compileMs.toFixed(0)} ms, differs ${difference.toExponential(1)}`);
      } catch (error) {
        console.log(`D=${headSize} ${kernel} ${name}: ${(error as Error).message.slice(0, 200)}`);
      }
    }
  }
  for (const buffer of [...buffers.values(), output, lse, lseTail, statistics, ...results]) {
    buffer.destroy();
  }
}
