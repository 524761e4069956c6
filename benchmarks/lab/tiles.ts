/** The kernels that work on tiles, one by one, under different blockings. */
import type {Capabilities} from '../../src/backends/webgpu/capabilities.js';
import {derive, makePlan, workgroupBytes} from '../../src/backends/webgpu/plan.js';
import type {Plan} from '../../src/backends/webgpu/plan.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {makeProblem} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

import {difference, random} from './device.js';
import type {Lab} from './device.js';

export type TiledKernel = 'forward'|'backward_dq'|'backward_dkv';

export interface TilesOptions {
  readonly kernels: readonly TiledKernel[];
  readonly sizes: readonly number[];
  readonly tokens: number;
  readonly length: number;
  readonly width: number;
  readonly causal: boolean;
  /** threadsX x threadsY x rows[:chunk[:rowChunk]]; none: the plan's own choice. */
  readonly blockings: readonly string[];
  readonly kinds: readonly PlanKind[];
}

/** Multiply-adds of a kernel in units of B·Hq·Nq·Nk·D. */
const PRODUCTS: Record<TiledKernel, number> = {forward: 2, backward_dq: 3, backward_dkv: 4};

function problemFor(headSize: number, {length, width, tokens, causal}: TilesOptions): Problem {
  const shape = [Math.max(1, tokens / length), length, width / headSize, headSize];
  return makeProblem({q: {shape}, k: {shape}, v: {shape}}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: causal ? 0 : -1,
    softmaxScale: 1 / Math.sqrt(headSize), softcap: 0, dropoutP: 0, seed: 0, deterministic: true,
    computeType: 'float32',
  });
}

function candidates(
    kernel: TiledKernel, problem: Problem, capabilities: Capabilities, {blockings, kinds}: TilesOptions): Plan[] {
  const wanted = kernel === 'backward_dkv' ? {wantKeys: true, wantValues: true} : {};
  // Only forward has kinds.
  return (kernel === 'forward' ? kinds : kinds.slice(0, 1)).flatMap(kind => {
    const own = makePlan(
        kernel, problem, capabilities, wanted, problem.batch, kernel === 'forward' ? kind : 'simt');
    return blockings.length === 0 ? [own] : blockings.map((text): Plan => {
      const [shape, chunk, rowChunk] = text.split(':');
      const [threadsX, threadsY, rows] = shape.split('x').map(Number);
      return {
        ...own, threadsX, threadsY, rows, chunk: Number(chunk ?? own.chunk), rowChunk: Number(rowChunk ?? own.rowChunk),
      };
    });
  });
}

async function labSize(lab: Lab, capabilities: Capabilities, headSize: number, options: TilesOptions) {
  const {limits} = lab;
  const problem = problemFor(headSize, options);
  const rows = problem.batch * problem.queryHeads * problem.queryLength;
  const elements = rows * headSize;
  const values = random(elements);
  const [q, k, v, dOutput] = [values, values, values, values].map(lab.bufferWith);
  const [output, lse, lseTail, statistics] =
      [elements, rows, rows, 4 * rows].map(length => lab.emptyBuffer(4 * length));
  // The backward kernels start from a real forward pass.
  const forward = await lab.prepare(
      makePlan('forward', problem, capabilities), problem,
      [new Map([[1, q], [2, k], [3, v], [6, output], [9, lse], [10, lseTail]])]);
  await lab.timeOnce(forward.dispatch, 1);
  const rowStatistics = await lab.prepare(
      makePlan('row_statistics', problem, capabilities), problem,
      [new Map([[4, dOutput], [5, output], [9, lse], [10, lseTail], [11, lse], [12, statistics]])]);
  await lab.timeOnce(rowStatistics.dispatch, 1);
  console.log(`D=${headSize} row_statistics ${(await lab.time(rowStatistics.dispatch)).ms.toFixed(3)} ms`);

  const results = [lab.emptyBuffer(4 * elements), lab.emptyBuffer(4 * elements)];
  const bound: Record<TiledKernel, Array<[number, GPUBuffer]>> = {
    forward: [[1, q], [2, k], [3, v], [6, results[0]], [9, lse], [10, lseTail]],
    backward_dq: [[1, q], [2, k], [3, v], [4, dOutput], [6, results[0]], [9, statistics]],
    backward_dkv: [[1, q], [2, k], [3, v], [4, dOutput], [6, results[0]], [7, results[1]], [9, statistics]],
  };
  for (const kernel of options.kernels) {
    let expected: Float32Array|undefined;
    for (const plan of candidates(kernel, problem, capabilities, options)) {
      const name = `${plan.kind} ${plan.threadsX}x${plan.threadsY}x${plan.rows}:${plan.chunk}:${plan.rowChunk}`;
      const bytes = workgroupBytes(plan);
      const {threads} = derive(plan);
      if (bytes > limits.maxComputeWorkgroupStorageSize || threads > limits.maxComputeInvocationsPerWorkgroup ||
          (kernel === 'backward_dkv' && plan.threadsX % plan.threadsY !== 0)) {
        console.log(`D=${headSize} ${kernel} ${name}: too large for the device, or no whole groups of keys`);
        continue;
      }
      try {
        const ready = await lab.prepare(plan, problem, [new Map(bound[kernel])]);
        const {ms, spread} = await lab.time(ready.dispatch);
        const checked = await lab.read(results[0], Math.min(elements * 4, 2 ** 24));
        expected ??= checked;
        const flops = 2 * PRODUCTS[kernel] * rows * problem.keyLength * headSize / (options.causal ? 2 : 1);
        console.log(
            `D=${headSize} ${kernel.padEnd(13)} ${name.padEnd(21)} ${String(bytes).padStart(6)} B ` +
            `${ms.toFixed(3).padStart(9)} ms ±${(100 * spread).toFixed(0)}% ` +
            `${(flops / ms / 1e9).toFixed(2).padStart(6)} TFLOP/s compile ${ready.compileMs.toFixed(0)} ms, ` +
            `differs ${difference(checked, expected).toExponential(1)}`);
      } catch (error) {
        console.log(`D=${headSize} ${kernel} ${name}: ${(error as Error).message.slice(0, 200)}`);
      }
    }
  }
  for (const buffer of [q, k, v, dOutput, output, lse, lseTail, statistics, ...results]) {
    buffer.destroy();
  }
}

export async function labTiles(lab: Lab, capabilities: Capabilities, options: TilesOptions): Promise<void> {
  for (const headSize of options.sizes) {
    await labSize(lab, capabilities, headSize, options);
  }
}
