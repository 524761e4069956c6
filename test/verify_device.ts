/**
 * Runs the case table on a real device and says how it went: for machines that the test runner does not reach.
 *   npx tsx test/verify_device.ts [--backend webgpu|cpu|wasm] [--seeds 0,1,2] [--grid 100] [--seconds 0] [--out FOLDER]
 * Each seed draws other numbers for the same shapes; --grid takes that many cases of the generator besides; --seconds
 * starts no new case after that long (0 is no limit). With --out it leaves verify-<device>.json there, which belongs in
 * benchmarks/results. Exit code 1 when a case fails.
 */
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import {slug} from '../benchmarks/core/slug.js';
import {describeEnvironment, useBackend} from '../benchmarks/environment.js';
import '../src/index.js';

import {gridSample} from './support/case_grid.js';
import {caseTable} from './support/cases.js';
import type {Case} from './support/cases.js';
import {judgeCase} from './support/run_case.js';
import {deviceErrors} from './support/webgpu_device.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  seeds: {type: 'string', default: '0'},
  grid: {type: 'string', default: '0'},
  seconds: {type: 'string', default: '0'},
  out: {type: 'string'},
}});

/** Multiply-adds of a case of the generator, on average: the reference computes them on one CPU thread. */
const GRID_WORK = 4e6;

/** How a set of cases went. */
interface Verdict {
  cases: string;
  passed: number;
  failed: number;
  notStarted: number;
  /** Largest error over what is allowed, of the cases that passed. */
  worst: number;
  failures: string[];
}

const started = performance.now();

async function verify(name: string, cases: readonly Case[]): Promise<Verdict> {
  const verdict: Verdict = {cases: name, passed: 0, failed: 0, notStarted: 0, worst: 0, failures: []};
  for (const c of cases) {
    if (Number(args.seconds) > 0 && performance.now() - started > 1000 * Number(args.seconds)) {
      verdict.notStarted++;
      continue;
    }
    const judged = await judgeCase(c);
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
  }
  console.log(`${name}: ${verdict.passed} passed, ${verdict.failed} failed, ${verdict.notStarted} not started; ` +
              `largest error is ${(100 * verdict.worst).toFixed(0)}% of what is allowed`);
  verdict.failures.forEach(failure => console.log(`  ${failure}`));
  return verdict;
}

const environment = describeEnvironment(await useBackend(args.backend));
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}`);
const verdicts: Verdict[] = [];
const run = async () => {
  for (const seed of args.seeds.split(',').map(Number)) {
    verdicts.push(await verify(`case table, seed ${seed}`, caseTable(seed)));
  }
  if (Number(args.grid) > 0) {
    verdicts.push(await verify('generator', gridSample(Number(args.grid), GRID_WORK * Number(args.grid))));
  }
};
const errors = args.backend === 'webgpu' ? await deviceErrors(run) : (await run(), []);
errors.forEach(message => console.log('device error:', message));
const sum = (key: 'passed'|'failed') => verdicts.reduce((total, verdict) => total + verdict[key], 0);
if (args.out) {
  mkdirSync(args.out, {recursive: true});
  const contents = {environment, verdicts, deviceErrors: errors};
  writeFileSync(join(args.out, `verify-${slug(environment.device)}.json`), `${JSON.stringify(contents, null, 1)}\n`);
}
console.log(`${sum('passed')} passed, ${sum('failed') + errors.length} failed`);
process.exit(sum('failed') + errors.length > 0 ? 1 : 0);
