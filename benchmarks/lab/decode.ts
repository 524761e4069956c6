/**
 * One query over many keys under different plans, with the merging of the parts: bytes of K and V a second, beside what
 * a copy of buffers and plain reading reach on the same data.
 */
import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities} from '../../src/backends/webgpu/capabilities.js';
import {makePlan, sizesOf, workgroupBytes} from '../../src/backends/webgpu/plan.js';
import type {Plan} from '../../src/backends/webgpu/plan.js';
import {makeSplit} from '../../src/backends/webgpu/splits.js';
import type {Split} from '../../src/backends/webgpu/splits.js';
import {workgroupCount} from '../../src/backends/webgpu/workgroups.js';
import {lseShape, makeProblem, rowShape} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

import {difference, random} from './device.js';
import type {Lab, Timing} from './device.js';

export interface DecodeOptions {
  readonly keys: readonly number[];
  readonly heads: number;
  readonly keyHeads: readonly number[];
  readonly sizes: readonly number[];
  readonly queries: number;
  readonly layout: 'bnhd'|'bhnd';
  /** Plans: see `candidate`. */
  readonly variants: readonly string[];
  /** Workgroups to split the keys for; 0: as the plan would. */
  readonly workgroups: readonly number[];
}

/** More than caches hold: an H200's has 50 MB. */
const FRESH_BYTES = 400e6;
const SAMPLE_MS = 15;
const WARM_UP_MS = 40;

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const gigabytes = (bytes: number, {ms}: Timing) => `${(bytes / ms / 1e6).toFixed(0).padStart(5)} GB/s`;

/**
 * A plan by name: `own` as the device gets it, `stock` as one without subgroups does, `simt` the kernel for tiles, or
 * threadsX x threadsY [x rows] : keysAtOnce [e: values along with the keys] [u: loops written out], or `own:u`; with
 * `stock/` before it without subgroups.
 */
function candidate(name: string, problem: Problem, device: Capabilities): Plan {
  const [shape, from = 'own'] = name.split('/').reverse();
  const isStock = from === 'stock' || shape.startsWith('stock');
  const capabilities = isStock ? stockCapabilities(device.limits) : device;
  const features = {split: true};
  if (name === 'simt') {
    return makePlan('forward', problem, capabilities, features, problem.batch, 'simt');
  }
  const own = makePlan('forward', problem, capabilities, features, problem.batch, 'decode');
  const [, threadsX, threadsY, rows, keysAtOnce, early, unrolled] =
      /^(\d+)x(\d+)(?:x(\d+))?:(\d+)(e?)(u?)$/.exec(shape) ?? [];
  return threadsX === undefined ? {...own, unrolled: shape.endsWith(':u')} : {
    ...own, threadsX: Number(threadsX), threadsY: Number(threadsY), rows: Number(rows ?? own.rows),
    keysAtOnce: Number(keysAtOnce), earlyValues: early === 'e', unrolled: unrolled === 'u',
  };
}

function splitFor(plan: Plan, problem: Problem, workgroups: number): Split {
  const extent =
      {batches: problem.batch, heads: problem.queryHeads, queries: problem.queryLength, keys: problem.keyLength};
  const each = workgroupCount(plan, problem, extent, problem.queryHeads / problem.keyHeads);
  return makeSplit(plan, workgroups === 0 ? problem : {...problem, splits: Math.max(1, Math.floor(workgroups / each))});
}

const READ = `
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4f>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let stride = 256u * groups.x;
  var sum = vec4f();
  for (var at = id.x; at + 7u * stride < arrayLength(&x); at += 8u * stride) {
    for (var n = 0u; n < 8u; n++) {
      sum += x[at + n * stride];
    }
  }
  result[id.x] = sum;
}`;

/** What the device makes of the same bytes without attention: copying (bytes read and written), reading. */
async function ceilings(lab: Lab, sets: readonly GPUBuffer[], bytes: number): Promise<string> {
  const {device} = lab;
  const copy = async (times: number) => {
    const encoder = device.createCommandEncoder();
    for (let n = 0; n < times; n++) {
      encoder.copyBufferToBuffer(sets[n % sets.length], 0, sets[(n + 1) % sets.length], 0, bytes);
    }
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
  };
  await copy(4);
  const times = Math.ceil(100e9 / bytes); // 80 ms at 2.5 TB/s
  await copy(times);
  const start = performance.now();
  await copy(times);
  const copying = {ms: (performance.now() - start) / times, spread: 0};
  const {pipeline} = await lab.compile(READ);
  const workgroups = 132 * 8;
  const result = lab.emptyBuffer(workgroups * 256 * 16);
  const groups = sets.map(buffer => lab.bind(pipeline, [[0, buffer], [1, result]]));
  let turn = 0;
  const reading = await lab.time(pass => {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, groups[turn++ % groups.length]);
    pass.dispatchWorkgroups(workgroups);
  }, SAMPLE_MS, WARM_UP_MS);
  result.destroy();
  return `copy ${gigabytes(2 * bytes, copying)} (read and written), read ${gigabytes(bytes, reading)}`;
}

/** As many pairs of K and V as no cache holds, filled on the device. */
function makeSets(lab: Lab, bytes: number): Array<[k: GPUBuffer, v: GPUBuffer]> {
  const chunk = lab.bufferWith(random(2 ** 20));
  const encoder = lab.device.createCommandEncoder();
  const filled = () => {
    const buffer = lab.emptyBuffer(bytes);
    for (let at = 0; at < bytes; at += chunk.size) {
      encoder.copyBufferToBuffer(chunk, 0, buffer, at, Math.min(chunk.size, bytes - at));
    }
    return buffer;
  };
  const sets = Array.from(
      {length: Math.min(64, Math.ceil(FRESH_BYTES / 2 / bytes))}, (): [GPUBuffer, GPUBuffer] => [filled(), filled()]);
  lab.device.queue.submit([encoder.finish()]);
  return sets;
}

async function labProblem(lab: Lab, capabilities: Capabilities, problem: Problem, options: DecodeOptions) {
  const {queryHeads, keyHeads, keyLength, headSize, queryLength} = problem;
  const bytes = keyLength * keyHeads * headSize * 4; // of K, and of V
  const title = `D=${headSize} Nq=${queryLength} Nk=${keyLength} Hq=${queryHeads} Hkv=${keyHeads}`;
  const {maxStorageBufferBindingSize, maxBufferSize} = lab.limits;
  if (bytes > Math.min(maxStorageBufferBindingSize, maxBufferSize)) {
    console.log(`${title}: K has ${bytes} bytes, more than the device binds (${maxStorageBufferBindingSize})`);
    return;
  }
  const sets = makeSets(lab, bytes);
  console.log(`${title}: ${(2 * bytes / 1e6).toFixed(1)} MB of K and V, ${sets.length} pairs of them; ` +
      await ceilings(lab, sets.flat(), bytes));
  const [outputs, rows] = [product(rowShape(problem, 'output')), product(lseShape(problem))];
  const q = lab.bufferWith(random(queryLength * queryHeads * headSize));
  const [output, lse, lseTail] = [outputs, rows, rows].map(length => lab.emptyBuffer(4 * length));
  const most = 256;
  const [partOutput, partLse, partTail] = [outputs, rows, rows].map(length => lab.emptyBuffer(4 * most * length));
  let expected: Float32Array|undefined;
  for (const name of options.variants) {
    const plan = candidate(name, problem, capabilities);
    const {threads} = sizesOf(plan);
    if (workgroupBytes(plan) > lab.limits.maxComputeWorkgroupStorageSize ||
        threads > lab.limits.maxComputeInvocationsPerWorkgroup) {
      console.log(`  ${name}: too large for the device`);
      continue;
    }
    const seen = new Set<number>();
    for (const workgroups of options.workgroups) {
      const split = splitFor(plan, problem, workgroups);
      if (seen.has(split.splits)) {
        continue;
      }
      seen.add(split.splits);
      const strides = {output: outputs, rows};
      const attend = await lab.prepare(plan, problem, sets.map(([k, v]) => new Map(
          [[1, q], [2, k], [3, v], [6, partOutput], [9, partLse], [10, partTail]])), split, strides);
      const merge = await lab.prepare(
          makePlan('merge_splits', problem, capabilities), problem,
          [new Map([[5, partOutput], [6, output], [9, lse], [10, lseTail], [11, partLse], [12, partTail]])],
          split, strides);
      const both = await lab.time(pass => {
        attend.dispatch(pass);
        merge.dispatch(pass);
      }, SAMPLE_MS, WARM_UP_MS);
      const alone = await lab.time(attend.dispatch, SAMPLE_MS, WARM_UP_MS);
      const actual = await lab.read(output, 4 * outputs);
      expected ??= actual;
      const shape = plan.kind === 'decode' ?
          `${plan.threadsX}x${plan.threadsY}x${plan.rows}:${plan.keysAtOnce}${plan.earlyValues ? 'e' : ''}` +
              `${plan.unrolled ? 'u' : ''}` :
          `${plan.threadsX}x${plan.threadsY}x${plan.rows}`;
      console.log(
          `  ${name.padEnd(14)} ${shape.padEnd(12)} ${String(split.splits).padStart(3)} splits ` +
          `${both.ms.toFixed(4)} ms ±${(100 * both.spread).toFixed(0)}% ${gigabytes(2 * bytes, both)}; ` +
          `without merging ${alone.ms.toFixed(4)} ms ${gigabytes(2 * bytes, alone)}; ` +
          `compile ${attend.compileMs.toFixed(0)} ms, differs ${difference(actual, expected).toExponential(1)}`);
    }
  }
  for (const buffer of [...sets.flat(), q, output, lse, lseTail, partOutput, partLse, partTail]) {
    buffer.destroy();
  }
}

export async function labDecode(lab: Lab, capabilities: Capabilities, options: DecodeOptions): Promise<void> {
  const {heads, queries, layout} = options;
  for (const size of options.sizes) {
    for (const keyHeads of options.keyHeads) {
      for (const keyLength of options.keys) {
        const shapeOf = (rows: number, headCount: number) =>
            ({shape: layout === 'bnhd' ? [1, rows, headCount, size] : [1, headCount, rows, size]});
        const [q, k] = [shapeOf(queries, heads), shapeOf(keyLength, keyHeads)];
        const problem = makeProblem({q, k, v: k}, {
          layout, causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1 / Math.sqrt(size),
          softcap: 0, dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
        });
        await labProblem(lab, capabilities, problem, options);
      }
    }
  }
}
