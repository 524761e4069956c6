/** The forward pass over subgroup matrices, and the turning of its operands into f16, under different blockings. */
import type {Capabilities} from '../../src/backends/webgpu/capabilities.js';
import {isMatrixKind} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {halfShape, isWrittenOut} from '../../src/backends/webgpu/matrix_plan.js';
import {isMatrixPlan, makePlan, workgroupBytes} from '../../src/backends/webgpu/plan.js';
import type {Plan} from '../../src/backends/webgpu/plan.js';
import type {Problem} from '../../src/op/problem.js';

import {difference, random} from './device.js';
import type {Lab} from './device.js';
import {problemFor} from './tiles.js';
import type {TilesOptions} from './tiles.js';

/**
 * `own` as the plan chooses, or subgroups x rows of a tile, for split operands followed by
 * :keys until sums are flushed[:subgroups that share a strip].
 */
function candidate(name: string, kind: PlanKind, problem: Problem, capabilities: Capabilities): Plan {
  const own = makePlan('forward', problem, capabilities, {}, problem.batch, kind);
  if (name === 'own' || !isMatrixPlan(own)) {
    return own;
  }
  const found = /^(\d+)x(\d+)(?::(\d+)(?::(\d+))?)?$/.exec(name);
  if (!found) {
    throw new Error(`expected own or subgroups x rows[:keys[:subgroups]] for a blocking, received ${name}`);
  }
  const [, subgroups, blockRows, flushKeys, stripSubgroups = '1'] = found;
  const rests = flushKeys === undefined ?
      own.matrix.rests :
      {flushKeys: Number(flushKeys), stripSubgroups: Number(stripSubgroups)};
  const matrix =
      {...own.matrix, subgroups: Number(subgroups), blockRows: Number(blockRows), ...own.matrix.rests && {rests}};
  const plan = {...own, matrix, threadsY: matrix.subgroups};
  return {...plan, unrolled: isWrittenOut(plan, capabilities)};
}

function describe({kind, matrix}: Plan): string {
  const {subgroups, blockRows, rests} = matrix!;
  const how = rests && `:${rests.flushKeys}:${rests.stripSubgroups}`;
  return `${kind} ${subgroups}x${blockRows}${how ?? ''}`;
}

async function labSize(
    lab: Lab, capabilities: Capabilities, headSize: number, options: TilesOptions, blockings: readonly string[]) {
  const problem = problemFor(headSize, options);
  const rows = problem.batch * problem.queryHeads * problem.queryLength;
  const elements = rows * headSize;
  // Of one stream, but no row of k is one of q: scores that tower above all others would be renewed again and again.
  const values = random(elements + 2002);
  const [q, k, v] = [0, 1001, 2002].map(first => lab.bufferWith(values.subarray(first, first + elements)));
  const [output, lse, lseTail, largest] = [elements, rows, rows, 8].map(length => lab.emptyBuffer(4 * length));
  const results: Array<[number, GPUBuffer]> = [[6, output], [9, lse], [10, lseTail]];
  const plain = await lab.prepare(
      makePlan('forward', problem, capabilities, {}, problem.batch, 'simt'), problem,
      [new Map([[1, q], [2, k], [3, v], ...results])]);
  await lab.timeOnce(plain.dispatch, 1);
  const checkedBytes = Math.min(elements * 4, 2 ** 24);
  const expected = await lab.read(output, checkedBytes);
  const flops = 4 * rows * problem.keyLength * headSize / (options.causal ? 2 : 1);

  for (const kind of options.kinds.filter(isMatrixKind)) {
    const splitOperands = kind === 'matrix_split';
    const own = candidate('own', kind, problem, capabilities);
    const halves = (['q', 'k', 'v'] as const).map((name, n): [number, GPUBuffer] => [
      17 + n,
      lab.emptyBuffer(4 * halfShape(problem, own.matrix!, name, splitOperands).reduce((size, part) => size * part, 1)),
    ]);
    const begin = await lab.prepare(
        makePlan('half_begin', problem, capabilities), problem, [new Map([[16, largest]])]);
    const turn = await Promise.all([false, true].map(again => lab.prepare(
        makePlan('to_half', problem, capabilities, {again, splitOperands}), problem,
        [new Map([[1, q], [2, k], [3, v], [16, largest], ...halves])])));
    const turning = await lab.time(pass => [begin, ...turn].forEach(({dispatch}) => dispatch(pass)));
    console.log(`D=${headSize} ${kind}: q, k and v into f16 ${turning.ms.toFixed(3)} ms`);
    for (const name of blockings) {
      const plan = candidate(name, kind, problem, capabilities);
      const bytes = workgroupBytes(plan);
      if (bytes > lab.limits.maxComputeWorkgroupStorageSize) {
        console.log(`D=${headSize} ${describe(plan)}: ${bytes} bytes of workgroup memory are too many`);
        continue;
      }
      try {
        const ready = await lab.prepare(plan, problem, [new Map([[16, largest], ...halves, ...results])]);
        const {ms, spread} = await lab.time(ready.dispatch);
        const apart = difference(await lab.read(output, checkedBytes), expected);
        console.log(
            `D=${headSize} forward ${describe(plan).padEnd(26)} ${String(bytes).padStart(6)} B ` +
            `${ms.toFixed(3).padStart(9)} ms ±${(100 * spread).toFixed(0)}% ` +
            `${(flops / ms / 1e9).toFixed(2).padStart(6)} TFLOP/s, with turning ` +
            `${(flops / (ms + turning.ms) / 1e9).toFixed(2).padStart(6)}; compile ${ready.compileMs.toFixed(0)} ms, ` +
            `differs from simt ${apart.toExponential(1)}`);
      } catch (error) {
        console.log(`D=${headSize} ${describe(plan)}: ${(error as Error).message.slice(0, 200)}`);
      }
    }
    halves.forEach(([, buffer]) => buffer.destroy());
  }
  [q, k, v, output, lse, lseTail, largest].forEach(buffer => buffer.destroy());
}

/** Only where a kind over subgroup matrices is asked for, on devices that have them. */
export async function labMatrix(
    lab: Lab, capabilities: Capabilities, options: TilesOptions, blockings: readonly string[]): Promise<void> {
  if (!options.kernels.includes('forward') || !options.kinds.some(isMatrixKind)) {
    return;
  }
  for (const headSize of options.sizes) {
    await labSize(lab, capabilities, headSize, options, blockings);
  }
}
