/**
 * Runs the case table on a real device and says how it went: for machines that the test runner does not reach.
 *   npx tsx test/verify_device.ts [--backend webgpu|cpu|wasm|tensorflow] [--seeds 0,1,2]
 *       [--plans simt,subgroup,matrix,matrix_split,decode] [--matrix 16x8x8] [--storage-buffers 12]
 *       [--device cuda]
 *       [--compute float32,bfloat16] [--grid 100] [--long] [--seconds 0] [--workers 1] [--out FOLDER]
 * Each seed draws other numbers for the same shapes. --plans has WebGPU's kernels run by each of these kinds in turn,
 * where they have it and it can run the case (default: as chosen); --matrix takes that product of subgroup matrices;
 * --storage-buffers has the device pass for one that binds no more of them (by 12 no `matrix` forward watches itself);
 * --device is where the native addon computes (setNativeDevice), with the backends cpu and wasm; with tensorflow it is
 * the GPU where TensorFlow has one. --compute has every case computed in each of these compute types; --grid takes that
 * many cases of the generator besides; --long some of a thousand keys and more; --seconds starts no new case after that
 * long (0 is no limit); --workers shares the cases among that many processes, since compiling takes most of the time.
 * With --out it leaves verify-<device>.json there, which belongs in benchmarks/results. Exit code 1 when a case fails.
 */
import {spawn} from 'node:child_process';
import {mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {slug} from '../benchmarks/core/slug.js';
import {describeEnvironment, useBackend} from '../benchmarks/environment.js';
import {isOnGpu} from '../src/backends/native/tensorflow_kernels.js';
import {noteAdapter} from '../src/backends/webgpu/capabilities.js';
import {pretendLimits} from '../src/backends/webgpu/device.js';
import {forcePlan} from '../src/backends/webgpu/choose.js';
import type {PlanKind} from '../src/backends/webgpu/choose.js';
import {nativeReport, setNativeDevice} from '../src/node.js';
import type {NativeDevice} from '../src/node.js';

import {gridSample} from './support/case_grid.js';
import {makeCase} from './support/case.js';
import type {Row} from './support/case.js';
import {caseTable} from './support/cases.js';
import type {Case} from './support/cases.js';
import {judgeCase} from './support/run_case.js';
import type {JudgedType} from './support/run_case.js';
import {deviceErrors, deviceOf} from './support/webgpu_device.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  seeds: {type: 'string', default: '0'},
  plans: {type: 'string', default: ''},
  matrix: {type: 'string', default: ''},
  'storage-buffers': {type: 'string', default: ''},
  device: {type: 'string', default: ''},
  compute: {type: 'string', default: 'float32'},
  grid: {type: 'string', default: '0'},
  long: {type: 'boolean', default: false},
  seconds: {type: 'string', default: '0'},
  workers: {type: 'string', default: '1'},
  /** `2/8`: every eighth case from the third on, verdicts into the file `report`. */
  part: {type: 'string', default: '0/1'},
  report: {type: 'string'},
  out: {type: 'string'},
}});

/** Multiply-adds of a case of the generator, on average: the reference computes them on one CPU thread. */
const GRID_WORK = 4e6;

/** Enough keys that sums over them show how they are made. The reference takes seconds for each. */
const LONG_ROWS: readonly Row[] = [64, 128].flatMap((headSize): Row[] => [
  {queryLength: 1024, keyLength: 1024, headSize},
  {queryLength: 1024, keyLength: 1024, headSize, causal: true},
  {queryLength: 256, keyLength: 4096, headSize},
  {queryLength: 512, keyLength: 2048, headSize, values: 'large'},
  {queryLength: 512, keyLength: 2048, headSize, keyHeads: 1, softcap: 10, sinks: true, lengths: 'both'},
  {queryLength: 512, keyLength: 2048, headSize, dropoutP: 0.2, seed: 5},
]);

/** How a set of cases went. */
interface Verdict {
  cases: string;
  passed: number;
  failed: number;
  notStarted: number;
  /** Cases that the kind of plan cannot run, by its own account. */
  notForPlan: number;
  /** Largest error over what is allowed, of the cases that passed. */
  worst: number;
  failures: string[];
}

interface Report {
  environment: Record<string, unknown>&{device: string};
  verdicts: Verdict[];
  deviceErrors: string[];
}

const started = performance.now();
const [part, parts] = args.part.split('/').map(Number);
const computeTypes = args.compute.split(',') as JudgedType[];
const kinds = (args.plans ? args.plans.split(',') : [undefined]) as Array<PlanKind|undefined>;

async function verify(
    name: string, cases: readonly Case[], kind: PlanKind|undefined, computeType: JudgedType): Promise<Verdict> {
  const verdict: Verdict =
      {cases: name, passed: 0, failed: 0, notStarted: 0, notForPlan: 0, worst: 0, failures: []};
  for (const c of cases.filter((_, place) => place % parts === part)) {
    if (Number(args.seconds) > 0 && performance.now() - started > 1000 * Number(args.seconds)) {
      verdict.notStarted++;
      continue;
    }
    forcePlan(kind);
    try {
      const judged = await judgeCase(c, kind === 'matrix' ? 'float16' : computeType);
      const failures = judged.filter(({ok}) => !ok).map(({message}) => message);
      if (failures.length > 0) {
        verdict.failed++;
        verdict.failures.push(`${c.name}: ${failures.join('; ')}`);
        continue;
      }
      verdict.passed++;
      judged.filter(({error, allowed}) => allowed > 0 && error > 0).forEach(({error, allowed}) => {
        verdict.worst = Math.max(verdict.worst, error / allowed);
      });
    } catch (error) {
      const {message} = error as Error;
      if (kind && message.includes(`the plan '${kind}' that was forced cannot run`)) {
        verdict.notForPlan++;
      } else {
        verdict.failed++;
        verdict.failures.push(`${c.name}: ${message}`);
      }
    }
  }
  forcePlan(undefined);
  return verdict;
}

const isInTensorFlowsGpu = () => args.backend === 'tensorflow' && isOnGpu(tf.backend());

/** The device that computed, where that was to be one of CUDA. @throws where it was not */
function cudaEnvironment() {
  const {calls, cuda, device} = nativeReport();
  const made = calls && calls.forward + calls.backward + calls.append;
  const isAllThere = calls && calls.cuda > 0 && calls.inPlaceOfCuda === 0 &&
      (!isInTensorFlowsGpu() || calls.tensorflow === made);
  if (!isAllThere || !cuda) {
    throw new Error(`not everything was computed on CUDA: ${JSON.stringify(calls)}`);
  }
  const {name} = cuda.devices.find(each => each.device === device) ?? cuda.devices[0];
  const native = isInTensorFlowsGpu() ? 'cuda, in TensorFlow\'s GPU memory' : device;
  return {device: name, native, driver: cuda.driver, kernels: cuda.kernels};
}

/** The cases of this process. */
async function verifyAll(): Promise<Report> {
  const backend = await useBackend(args.backend);
  if (args.device) {
    setNativeDevice(args.device as NativeDevice);
  }
  if (args.matrix) {
    const [M, N, K] = args.matrix.split('x').map(Number);
    const config = {M, N, K, componentType: 'f16', resultComponentType: 'f32'};
    const {subgroupMinSize, subgroupMaxSize} = deviceOf().adapterInfo;
    noteAdapter(
        deviceOf(), {subgroupMinSize, subgroupMaxSize, subgroupMatrixConfigs: [config]} as unknown as GPUAdapterInfo);
  }
  const buffers = args['storage-buffers'];
  if (buffers) {
    pretendLimits(deviceOf(), {maxStorageBuffersPerShaderStage: Number(buffers)});
  }
  const verdicts: Verdict[] = [];
  const run = async () => {
    for (const [kind, type] of kinds.flatMap(kind => computeTypes.map(type => [kind, type] as const))) {
      const inType = computeTypes.length > 1 || type !== 'float32' ? `, ${type}` : '';
      const by = `${kind ? `, plan ${kind}` : ''}${args.matrix && ` ${args.matrix}`}` +
          `${buffers && ` ${buffers} buffers`}${inType}`;
      for (const seed of args.seeds.split(',').map(Number)) {
        verdicts.push(await verify(`case table, seed ${seed}${by}`, caseTable(seed), kind, type));
      }
      if (args.long) {
        const rows = LONG_ROWS.map((row, place) => makeCase(row, 5000 + place));
        verdicts.push(await verify(`long rows${by}`, rows, kind, type));
      }
      if (Number(args.grid) > 0) {
        const sampled = gridSample(Number(args.grid), GRID_WORK * Number(args.grid));
        verdicts.push(await verify(`generator${by}`, sampled, kind, type));
      }
    }
  };
  const errors = args.backend === 'webgpu' ? await deviceErrors(run) : (await run(), []);
  const environment = {...describeEnvironment(backend), ...(args.device || isInTensorFlowsGpu()) && cudaEnvironment()};
  return {environment, verdicts, deviceErrors: errors};
}

/** The same cases shared among processes. */
async function verifyByWorkers(count: number): Promise<Report> {
  const folder = mkdtempSync(join(tmpdir(), 'verify-'));
  const reports = await Promise.all(Array.from({length: count}, (_, n) => new Promise<Report>((resolve, reject) => {
    const report = join(folder, `${n}.json`);
    const {workers: _workers, out: _out, ...own} = {...args, part: `${n}/${count}`, report};
    const list = Object.entries(own).flatMap(([name, value]) =>
      value === true ? [`--${name}`] : value === false ? [] : [`--${name}=${value}`]);
    const child = spawn(process.execPath, [...process.execArgv, process.argv[1], ...list], {stdio: 'inherit'});
    child.on('exit', (code, signal) => {
      try {
        resolve(JSON.parse(readFileSync(report, 'utf8')) as Report);
      } catch {
        reject(new Error(`worker ${n} left no report (exit code ${code}, signal ${signal})`));
      }
    });
  })));
  rmSync(folder, {recursive: true});
  const verdicts = reports[0].verdicts.map(({cases}, n): Verdict => {
    const same = reports.map(report => report.verdicts[n]);
    const sum = (key: 'passed'|'failed'|'notStarted'|'notForPlan') => same.reduce((total, v) => total + v[key], 0);
    return {
      cases, passed: sum('passed'), failed: sum('failed'), notStarted: sum('notStarted'), notForPlan: sum('notForPlan'),
      worst: Math.max(...same.map(({worst}) => worst)), failures: same.flatMap(({failures}) => failures),
    };
  });
  return {...reports[0], verdicts, deviceErrors: reports.flatMap(report => report.deviceErrors)};
}

const workers = Number(args.workers);
const report = workers > 1 ? await verifyByWorkers(workers) : await verifyAll();
if (args.report) {
  writeFileSync(args.report, JSON.stringify(report));
  process.exit(0);
}
const {environment, verdicts, deviceErrors: errors} = report;
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}`);
for (const {cases, passed, failed, notStarted, notForPlan, worst, failures} of verdicts) {
  console.log(`${cases}: ${passed} passed, ${failed} failed, ${notStarted} not started, ${notForPlan} not for this ` +
              `plan; largest error is ${(100 * worst).toFixed(0)}% of what is allowed`);
  failures.forEach(failure => console.log(`  ${failure}`));
}
errors.forEach(message => console.log('device error:', message));
const sum = (key: 'passed'|'failed') => verdicts.reduce((total, verdict) => total + verdict[key], 0);
if (args.out) {
  mkdirSync(args.out, {recursive: true});
  writeFileSync(join(args.out, `verify-${slug(environment.device)}.json`), `${JSON.stringify(report, null, 1)}\n`);
}
console.log(`${sum('passed')} passed, ${sum('failed') + errors.length} failed`);
process.exit(sum('failed') + errors.length > 0 ? 1 : 0);
