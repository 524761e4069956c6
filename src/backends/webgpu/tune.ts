import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION, FLASH_ATTENTION_GRAD, kernelCall} from '../../op/kernels.js';
import type {AttentionAttrs, GradAttrs, PlannedKernel, TunedKind, TuneReport} from '../../op/kernels.js';
import type {ComputeType} from '../../op/options.js';
import {isEmpty} from '../../op/problem.js';

import type {Backend} from './backend.js';
import {adapterOf, noteWinners} from './capabilities.js';
import {candidates, forcedPlan, forcePlan} from './choose.js';
import type {PlanKind} from './choose.js';
import {awaitLoss, forgetPrepared} from './device.js';
import {checkBackend} from './guarded_backend.js';
import {prepareAhead} from './prepare_ahead.js';
import {capabilitiesFor} from './prepare.js';
import {problemClass} from './problem_class.js';
import {Stopwatch} from './stopwatch.js';
import {tuneInput} from './tune_inputs.js';
import {rememberWinners} from './winners.js';

/** Runs one of our kernels on a backend. */
export type RunKernel = (kernel: PlannedKernel, inputs: readonly TensorInfo[], backend: Backend) => TensorInfo[];

/** How far a result may be from that of `simt`, in parts of its largest value. */
const TOLERANCE: Readonly<Record<ComputeType, number>> =
    {float32: 2 ** -15, tensorfloat32: 2 ** -8, float16: 2 ** -8, bfloat16: 2 ** -5};

const [ROUNDS, MOST_CALLS, WARM_UP_MS] = [5, 200, 250];

/** The call that is timed: its kernels by plans of a kind. Gives what they make, to be disposed. */
type Call = (kind: PlanKind, backend: Backend) => TensorInfo[];

/** Has `f` run by plans of a kind. Only what it does before it first awaits: other calls go on meanwhile. */
function forcing<T>(kind: PlanKind, f: () => T): T {
  const before = forcedPlan();
  forcePlan(kind);
  try {
    return f();
  } finally {
    forcePlan(before);
  }
}

const dispose = (backend: Backend, tensors: readonly TensorInfo[]) =>
    tensors.forEach(({dataId}) => backend.disposeData(dataId as DataId));

/** A forward pass, and a backward pass on what it made where there is one. */
function callOf(
    forward: PlannedKernel, gradient: PlannedKernel|undefined, inputs: readonly TensorInfo[],
    dOutput: readonly TensorInfo[], run: RunKernel): Call {
  return (kind, backend) => forcing(kind, () => {
    const results = run(forward, inputs, backend);
    try {
      return gradient ? [...results, ...run(gradient, [...inputs, ...results, ...dOutput], backend)] : results;
    } catch (error) {
      dispose(backend, results);
      throw error;
    }
  });
}

/** The place of the LSE's tail among the results: what rounding left of the LSE, and each kind rounds its own way. */
const TAIL = 2;

async function resultsOf(backend: Backend, call: Call, kind: PlanKind): Promise<Float32Array[]> {
  const tensors = call(kind, backend);
  try {
    const values = await Promise.all(tensors.map(async ({dataId}) => await backend.read(dataId) as Float32Array));
    return values.filter((_, place) => place !== TAIL);
  } finally {
    dispose(backend, tensors);
  }
}

/** What is wrong with results, as against those of `simt`; undefined where nothing is. */
function difference(
    actual: readonly Float32Array[], expected: readonly Float32Array[], tolerance: number): string|undefined {
  for (const [n, values] of expected.entries()) {
    let [largest, furthest] = [0, 0];
    for (let i = 0; i < values.length; i++) {
      if (values[i] !== actual[n][i]) { // −∞ is an LSE
        const distance = Math.abs(values[i] - actual[n][i]);
        furthest = distance <= furthest ? furthest : distance; // NaN stays
      }
      largest = Math.abs(values[i]) < Infinity ? Math.max(largest, Math.abs(values[i])) : largest;
    }
    if (!(furthest <= tolerance * largest)) {
      return `result ${n} is ${furthest} away from that of 'simt', whose largest value is ${largest}`;
    }
  }
  return undefined;
}

/** Kinds that compile and give the right results with nothing; the others with what is wrong. */
async function judge(
    backend: Backend, kinds: readonly PlanKind[], call: Call,
    tolerance: number): Promise<Map<PlanKind, string|undefined>> {
  const judged = new Map<PlanKind, string|undefined>();
  let expected: Float32Array[]|undefined;
  for (const kind of kinds) {
    try {
      await forcing(kind, () => prepareAhead(backend.device, planning => {
        call(kind, planning);
      }));
      const results = await resultsOf(backend, call, kind);
      expected ??= results;
      judged.set(kind, difference(results, expected, tolerance));
    } catch (error) {
      checkBackend(backend);
      if (!expected) {
        throw error;
      }
      judged.set(kind, (error as Error).message.split('\n')[0]);
    }
  }
  return judged;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Milliseconds of a call by each kind, taken in turns. */
async function timeCalls(
    backend: Backend, kinds: readonly PlanKind[], call: Call, milliseconds: number): Promise<Map<PlanKind, number>> {
  const stopwatch = new Stopwatch(backend, MOST_CALLS);
  const time = (kind: PlanKind, calls: number) => stopwatch.time(() => dispose(backend, call(kind, backend)), calls);
  try {
    const once = new Map<PlanKind, number>();
    for (const kind of kinds) {
      once.set(kind, await time(kind, 1));
    }
    const callsOf = (kind: PlanKind) =>
        Math.max(1, Math.min(MOST_CALLS, Math.round(milliseconds / ROUNDS / once.get(kind)!)));
    // GPUs idle at a fraction of their clock.
    const start = performance.now();
    while (performance.now() - start < WARM_UP_MS) {
      await time(kinds[0], callsOf(kinds[0]));
    }
    const rounds = new Map(kinds.map(kind => [kind, [] as number[]]));
    for (let round = 0; round < ROUNDS; round++) {
      for (const kind of kinds) {
        rounds.get(kind)!.push(await time(kind, callsOf(kind)));
      }
    }
    return new Map([...rounds].map(([kind, times]) => [kind, median(times)]));
  } finally {
    stopwatch.dispose();
  }
}

async function timeKinds(
    backend: Backend, kinds: readonly PlanKind[], forward: PlannedKernel, gradient: PlannedKernel|undefined,
    milliseconds: number, run: RunKernel): Promise<TunedKind[]> {
  const {problem} = kernelCall(forward.inputs, forward.attrs as AttentionAttrs);
  const made: TensorInfo[] = [];
  const upload = ({inputs, attrs}: PlannedKernel, from: number): TensorInfo[] => inputs.slice(from).map((input, n) => {
    const name = (attrs as GradAttrs).inputNames[from + n];
    const tensor = backend.makeTensorInfo(input.shape, input.dtype, tuneInput(name, input, problem));
    made.push(tensor);
    return tensor;
  });
  try {
    const inputs = upload(forward, 0);
    const dOutput = gradient ? upload(gradient, gradient.inputs.length - 1) : [];
    const call = callOf(forward, gradient, inputs, dOutput, run);
    const judged = await judge(backend, kinds, call, TOLERANCE[problem.computeType]);
    const right = kinds.filter(kind => judged.get(kind) === undefined);
    const times = await timeCalls(backend, right, call, milliseconds);
    checkBackend(backend);
    return kinds.map(kind => {
      const wrong = judged.get(kind);
      return {kind, ...wrong === undefined ? {milliseconds: times.get(kind)} : {problem: wrong}};
    });
  } catch (error) {
    await awaitLoss(backend.device);
    checkBackend(backend); // says more where it is the device
    throw error;
  } finally {
    dispose(backend, made);
  }
}

/** Times the kinds of plans that a call can run by, and has the fastest win from now on. */
async function tuneNow(
    backend: Backend, kernels: readonly PlannedKernel[], milliseconds: number, run: RunKernel): Promise<TuneReport> {
  const {device} = backend;
  checkBackend(backend);
  const forward = kernels.find(({name}) => name === FLASH_ATTENTION)!;
  const gradient = kernels.find(({name}) => name === FLASH_ATTENTION_GRAD);
  const {problem} = kernelCall(forward.inputs, forward.attrs as AttentionAttrs);
  const report = {adapter: adapterOf(device), problems: problemClass(problem, gradient !== undefined)};
  const kinds = candidates(problem, capabilitiesFor(device, 'forward', problem), gradient !== undefined);
  if (kinds.length === 1 || isEmpty(problem)) {
    return {...report, timed: [], winner: kinds[0]};
  }
  const timed = await timeKinds(backend, kinds, forward, gradient, milliseconds, run);
  const winner = timed.reduce(
      (best, way) => (way.milliseconds ?? Infinity) < best.milliseconds! ? way : best).kind as PlanKind;
  const winners = {[report.problems]: winner};
  noteWinners(device, winners);
  forgetPrepared(device);
  const rememberedIn = rememberWinners(report.adapter, winners);
  return {...report, timed, winner, ...rememberedIn !== undefined && {rememberedIn}};
}

/** Calls that overlap come one after the other: each would spoil the other's times. */
let before: Promise<unknown> = Promise.resolve();

export function tuneKernels(
    backend: Backend, kernels: readonly PlannedKernel[], milliseconds: number, run: RunKernel): Promise<TuneReport> {
  const result = before.then(() => tuneNow(backend, kernels, milliseconds, run));
  before = result.catch(() => undefined);
  return result;
}
