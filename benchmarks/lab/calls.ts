/**
 * Whole calls: each kernel by itself under different blockings, splits of the keys and orders of the tiles, and
 * the call as a whole as one pass of dispatches.
 */
import type {Capabilities} from '../../src/backends/webgpu/capabilities.js';
import {isMatrixKind} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import type {KernelName} from '../../src/backends/webgpu/kernel_names.js';
import {halfShape, isWrittenOut, matrixShape} from '../../src/backends/webgpu/matrix_plan.js';
import type {HalfName} from '../../src/backends/webgpu/matrix_plan.js';
import {isMatrixPlan, makePlan, sizesOf, workgroupBytes} from '../../src/backends/webgpu/plan.js';
import type {Features, Plan} from '../../src/backends/webgpu/plan.js';
import {makeSplit} from '../../src/backends/webgpu/splits.js';
import type {Split} from '../../src/backends/webgpu/splits.js';
import {LARGEST_WORDS} from '../../src/backends/webgpu/workgroups.js';
import {lseShape, makeProblem, rowShape} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

import {difference, random} from './device.js';
import type {Lab, Ready} from './device.js';

export interface CallsOptions {
  /** B x H x N x D[c: causal]. */
  readonly shapes: readonly string[];
  /** Those of `kernels` beside it; row_statistics and the turning into f16 are timed anyway. */
  readonly kernels: readonly KernelName[];
  readonly kinds: readonly PlanKind[];
  /** See `candidate`. */
  readonly forward: readonly string[];
  readonly backward: readonly string[];
}

const SAMPLE_MS = 8;
const WARM_UP_MS = 20;
const MOST_SPLITS = 8;
const CHECKED = 2 ** 21;

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function problemOf(text: string): Problem {
  const [, b, h, n, d, c] = /^(\d+)x(\d+)x(\d+)x(\d+)(c?)$/.exec(text) ?? [];
  if (b === undefined) {
    throw new Error(`expected B x H x N x D[c] for a shape, received ${text}`);
  }
  const shape = [Number(b), Number(n), Number(h), Number(d)];
  return makeProblem({q: {shape}, k: {shape}, v: {shape}}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: c === 'c' ? 0 : -1,
    softmaxScale: 1 / Math.sqrt(Number(d)), softcap: 0, dropoutP: 0, seed: 0, deterministic: true,
    computeType: 'float32',
  });
}

interface Candidate {
  readonly name: string;
  readonly plan: Plan;
  readonly split: Split;
}

/**
 * A plan by name: `own`, or subgroups x rows of a tile (matrices) [x strips [x subgroups that share a strip (forward)
 * or of a side (backward_dkv)]], for split operands then :keys until sums are flushed, or threadsX x threadsY x rows;
 * then [/parts of the keys][w tiles of a wave][u: loops are not written out].
 */
function candidate(
    name: string, kernel: KernelName, kind: PlanKind, problem: Problem, capabilities: Capabilities,
    features: Partial<Features>): Candidate {
  const [, shape, flushKeys, splits, wave, loops] =
      /^(own|[\dx]+)(?::(\d+))?(?:\/(\d+))?(?:w(\d+))?(u?)$/.exec(name) ?? [];
  if (shape === undefined) {
    throw new Error(`expected a blocking[:keys][/parts][w wave][u], received ${name}`);
  }
  const own = makePlan(kernel, problem, capabilities, features, problem.batch, kind);
  const sizes = shape === 'own' ? undefined : shape.split('x').map(Number);
  let plan: Plan = {...own, wave: wave === undefined ? own.wave : Number(wave)};
  if (isMatrixPlan(plan)) {
    const own = plan.matrix;
    const isForward = kernel === 'forward';
    const [subgroups, blockRows, strips = 1, sharing = 1] =
        sizes ?? [own.subgroups, own.blockRows, own.strips, isForward ? own.stripSubgroups : own.parts];
    const flush = flushKeys !== undefined && {flushKeys: Number(flushKeys)};
    const matrix = {
      ...own, subgroups, blockRows, strips, ...flush,
      ...isForward ? {stripSubgroups: sharing} : {parts: kernel === 'backward_dkv' ? sharing : 1},
    };
    const unrolled = isWrittenOut({...plan, matrix}, capabilities) && loops !== 'u';
    plan = {...plan, matrix, threadsY: subgroups, unrolled};
  } else if (sizes) {
    plan = {...plan, threadsX: sizes[0], threadsY: sizes[1], rows: sizes[2]};
  }
  const split = kernel !== 'forward' ? {splits: 1, keys: 0} :
      makeSplit(plan, splits === undefined ? problem : {...problem, splits: Number(splits)});
  return {name, plan: {...plan, split: split.splits > 1}, split};
}

/** All buffers of a call, by what they are. */
function makeBuffers(lab: Lab, problem: Problem, capabilities: Capabilities, kinds: readonly PlanKind[]) {
  const elements = product(rowShape(problem, 'output'));
  const rows = product(lseShape(problem));
  // Of one stream, but no row of k is one of q: scores that tower above all others would be renewed again and again.
  const values = random(elements + 4004);
  const input = (first: number) => lab.bufferWith(values.subarray(first, first + elements));
  const floats = (length: number) => lab.emptyBuffer(4 * length);
  const withHalves = kinds.some(isMatrixKind);
  const half = (name: HalfName) => lab.emptyBuffer(4 * product(halfShape(
      problem, matrixShape(capabilities)!, name, kinds.includes('matrix_split'))));
  return {
    elements, rows,
    q: input(0), k: input(1001), v: input(2002), dOutput: input(3003),
    output: floats(elements), lse: floats(rows), tail: floats(rows), statistics: floats(4 * rows),
    dQ: floats(elements), dK: floats(elements), dV: floats(elements), largest: floats(LARGEST_WORDS),
    partOutput: floats(MOST_SPLITS * elements), partLse: floats(MOST_SPLITS * rows),
    partTail: floats(MOST_SPLITS * rows),
    ...withHalves && {halves: {q: half('q'), k: half('k'), v: half('v'), dOutput: half('dOutput')}},
  };
}

type Buffers = ReturnType<typeof makeBuffers>;

const halvesOf = ({halves}: Buffers, withOutput: boolean): Array<[number, GPUBuffer]> => halves ? [
  [17, halves.q], [18, halves.k], [19, halves.v], ...withOutput ? [[20, halves.dOutput] as [number, GPUBuffer]] : [],
] : [];

function bindingsOf({plan, split}: Candidate, b: Buffers): Map<number, GPUBuffer> {
  const isForward = plan.kernel === 'forward';
  const isFirst = isMatrixPlan(plan) && !plan.again;
  const tensors: Array<[number, GPUBuffer]> =
      [[1, b.q], [2, b.k], [3, b.v], ...isForward ? [] : [[4, b.dOutput] as [number, GPUBuffer]]];
  const operands = [...isFirst ? halvesOf(b, !isForward) : tensors, ...plan.watchesItself ? tensors : []];
  if (isFirst ? !isForward || plan.splitOperands || plan.watchesItself : plan.routed || plan.again) {
    operands.push([16, b.largest]);
  }
  const isSplit = split.splits > 1;
  const results: Array<[number, GPUBuffer]> = isForward ?
      isSplit ? [[6, b.partOutput], [9, b.partLse], [10, b.partTail]] : [[6, b.output], [9, b.lse], [10, b.tail]] :
      plan.kernel === 'backward_dq' ? [[6, b.dQ], [9, b.statistics]] :
                                      [[6, b.dK], [7, b.dV], [9, b.statistics]];
  return new Map([...operands, ...results]);
}

/** Multiply-adds of a kernel in units of B·Hq·Nq·Nk·D, as the results files count: backward 2.5 times forward. */
const PRODUCTS: {readonly [kernel in KernelName]?: number} = {forward: 2, backward_dq: 3, backward_dkv: 4};

async function labShape(lab: Lab, capabilities: Capabilities, text: string, options: CallsOptions) {
  const problem = problemOf(text);
  const b = makeBuffers(lab, problem, capabilities, options.kinds);
  const strides = {output: b.elements, rows: b.rows};
  const share = text.endsWith('c') ? 0.5 : 1;
  const flops = (products: number) => 2 * products * b.rows * problem.keyLength * problem.headSize * share;
  const prepare = (plan: Plan, bound: ReadonlyMap<number, GPUBuffer>, split?: Split) =>
      lab.prepare(plan, problem, [bound], split, strides);
  const plain = (kernel: KernelName, features: Partial<Features> = {}) =>
      candidate('own', kernel, 'simt', problem, capabilities, features);
  const both = {wantKeys: true, wantValues: true};
  const run = async (work: Ready) => {
    await lab.timeOnce(work.dispatch, 1);
  };
  const ms = async (works: readonly Ready[]) =>
      (await lab.time(pass => works.forEach(({dispatch}) => dispatch(pass)), SAMPLE_MS, WARM_UP_MS)).ms;
  const check = async (buffers: readonly GPUBuffer[]) =>
      Promise.all(buffers.map(buffer => lab.read(buffer, 4 * Math.min(CHECKED, b.elements))));

  // Expected results, and what the backward kernels start from.
  const whole = plain('forward');
  await run(await prepare({...whole.plan, split: false}, bindingsOf({...whole, split: {splits: 1, keys: 0}}, b)));
  const statistics = await prepare(makePlan('row_statistics', problem, capabilities), new Map(
      [[4, b.dOutput], [5, b.output], [9, b.lse], [10, b.tail], [11, b.lse], [12, b.statistics]]));
  await run(statistics);
  const expected: {[kernel in KernelName]?: Float32Array[]} = {forward: await check([b.output])};
  for (const kernel of ['backward_dq', 'backward_dkv'] as const) {
    const made = plain(kernel, both);
    await run(await prepare(made.plan, bindingsOf(made, b)));
    expected[kernel] = await check(kernel === 'backward_dq' ? [b.dQ] : [b.dK, b.dV]);
  }
  const merge = (split: Split) => prepare(makePlan('merge_splits', problem, capabilities), new Map([
    [5, b.partOutput], [6, b.output], [9, b.lse], [10, b.tail], [11, b.partLse], [12, b.partTail],
  ]), split);

  // By kind, and with dO too, for the backward kernels.
  const turning: {[what: string]: Ready[]} = {};
  for (const kind of options.kinds.filter(isMatrixKind)) {
    const splitOperands = kind === 'matrix_split';
    for (const hasDOutput of [false, true]) {
      const bound = new Map([
        [1, b.q], [2, b.k], [3, b.v], [16, b.largest], ...halvesOf(b, hasDOutput),
        ...hasDOutput ? [[4, b.dOutput], [11, b.lse]] as Array<[number, GPUBuffer]> : [],
      ]);
      // Of the forward pass of the kind `matrix` the first alone.
      const passes = splitOperands || hasDOutput ? [false, true] : [false];
      const halves = await Promise.all(passes.map(
          again => prepare(makePlan('to_half', problem, capabilities, {again, splitOperands, hasDOutput}), bound)));
      turning[hasDOutput ? `${kind} with dO` : kind] = halves;
    }
  }
  const candidates: Array<Candidate&{ready: Ready, merging?: Ready, routed?: Ready}> = [];
  await Promise.all(options.kernels.flatMap(kernel => options.kinds.flatMap(
      kind => (kernel === 'forward' ? options.forward : options.backward).map(async name => {
        if (kernel !== 'forward' && kind === 'subgroup') {
          return;
        }
        try {
          const made = candidate(name, kernel, kind, problem, capabilities, kernel === 'backward_dkv' ? both : {});
          const {threads} = sizesOf(made.plan);
          if (workgroupBytes(made.plan) > lab.limits.maxComputeWorkgroupStorageSize ||
              threads > lab.limits.maxComputeInvocationsPerWorkgroup) {
            console.log(`${text} ${kernel} ${kind} ${name}: too large for the device`);
            return;
          }
          const split = made.split.splits > 1;
          const isRedone = kernel === 'forward' && kind === 'matrix';
          const standIn = isMatrixKind(kind) && !made.plan.watchesItself ? {
            ...made, plan: isRedone ?
                makePlan(kernel, problem, capabilities, {again: true, split}, problem.batch, kind) :
                makePlan(kernel, problem, {...capabilities, matrix: []}, {
                  ...kernel === 'backward_dkv' ? both : {}, routed: true, split,
                }),
          } : undefined;
          candidates.push({
            ...made,
            ready: await prepare(made.plan, bindingsOf(made, b), made.split),
            ...split && {merging: await merge(made.split)},
            ...standIn && {routed: await prepare(standIn.plan, bindingsOf(standIn, b), made.split)},
          });
        } catch (error) {
          console.log(`${text} ${kernel} ${kind} ${name}: ${(error as Error).message.slice(0, 200)}`);
        }
      }))));

  await lab.time(statistics.dispatch, SAMPLE_MS, 250);
  const us = (value: number) => (1e3 * value).toFixed(1).padStart(7);
  if (options.kernels.some(kernel => kernel !== 'forward')) {
    console.log(`${text} row_statistics ${us(await ms([statistics]))} µs`);
  }
  for (const [what, works] of Object.entries(turning)) {
    const all = await ms(works);
    const each: string[] = [];
    for (const work of works) {
      each.push(us(await ms([work])));
    }
    console.log(`${text} to_half for ${what} ${us(all)} µs: ${each.join(' + ')}`);
  }
  candidates.sort((x, y) => x.plan.kernel.localeCompare(y.plan.kernel) || x.plan.kind.localeCompare(y.plan.kind));
  let turnedFor: PlanKind|undefined;
  for (const {name, plan, split, ready, merging, routed} of candidates) {
    const isForward = plan.kernel === 'forward';
    if (isMatrixPlan(plan) && turnedFor !== plan.kind) {
      // Both kinds keep their operands in the same buffers.
      turnedFor = plan.kind;
      await ms(turning[`${plan.kind} with dO`]);
    }
    const alone = await ms([ready]);
    const actual = await (async () => {
      if (merging) {
        await run(merging);
      }
      return check(isForward ? [b.output] : plan.kernel === 'backward_dq' ? [b.dQ] : [b.dK, b.dV]);
    })();
    const apart = Math.max(...actual.map((values, n) => difference(values, expected[plan.kernel]![n])));
    const works = [ready, ...routed ? [routed] : [], ...merging ? [merging] : []];
    // With the turning into f16 where that is the call's own.
    const call = [...isForward && isMatrixPlan(plan) ? turning[plan.kind] : [], ...works];
    const total = await ms(call);
    const rest = [
      ...merging ? [`merging ${us(await ms([merging]))}`] : [], ...routed ? [`stand-in ${us(await ms([routed]))}`] : [],
    ];
    const rate = (time: number) =>
        `${us(time)} µs ${(flops(PRODUCTS[plan.kernel]!) / time / 1e9).toFixed(1).padStart(6)}`;
    console.log(
        `${text} ${plan.kernel.padEnd(12)} ${plan.kind.padEnd(12)} ${name.padEnd(14)} ${split.splits} parts ` +
        `${rate(alone)}; all ${rate(total)}; ${rest.join(', ')}; off ${apart.toExponential(1)}`);
  }
  const {elements: _, rows: __, halves, ...buffers} = b;
  [...Object.values(buffers), ...Object.values(halves ?? {})].forEach(buffer => buffer.destroy());
}

export async function labCalls(lab: Lab, capabilities: Capabilities, options: CallsOptions): Promise<void> {
  for (const shape of options.shapes) {
    await labShape(lab, capabilities, shape, options);
  }
}
