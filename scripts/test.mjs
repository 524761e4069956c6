// npm test: all parts in this order, or only those named (npm test -- unit webgpu). npm run test:full takes the whole
// grid of cases where npm test takes a sample. A part that fails does not stop the rest. A part that cannot run here is
// SKIPPED, with the reason, unless REQUIRE_DEVICE (a list) names its device: then it fails. The last line is always
// "N passed, N failed".
import {spawnSync} from 'node:child_process';
import {readFileSync, rmSync} from 'node:fs';
import {fileURLToPath} from 'node:url';

import {embedWgsl} from './embed_wgsl.mjs';
import {lavapipeLauncher, lavapipeProblem} from './lavapipe.mjs';
import {
  ensureSystemPackages, findBrowser, nativeProblem, swiftShaderEnv, tfjsNodeProblem, vulkanProblem,
} from './system_packages.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

const isFull = process.argv.includes('--full');
const STEP_TIMEOUT = (isFull ? 180 : 25) * 60_000; // a hang is a failure too

/** Runs a script in Node, started by `command` where one is given; true when it exits with 0. */
function node(args, env = {}, [program, ...first] = [process.execPath]) {
  const {status, signal} = spawnSync(program, [...first, ...args], {
    stdio: 'inherit', env: {...process.env, ...isFull && {TEST_FULL: '1'}, ...env}, timeout: STEP_TIMEOUT,
  });
  if (signal) {
    console.log(`ended by ${signal}`);
  }
  return status === 0;
}

/** One check, passed or failed. */
const check = ok => ({passed: Number(ok), failed: Number(!ok)});

/** Runs what leaves its counts in build/<name>_counts.json. A bad exit is a failure, whatever the counts say. */
function counted(name, args, env, command) {
  const file = `build/${name}_counts.json`;
  rmSync(file, {force: true});
  const ok = node(args, env, command);
  let counts = {passed: 0, failed: 0};
  try {
    counts = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    console.log('ended before it could count');
  }
  return {...counts, failed: Math.max(counts.failed, ok && counts.passed > 0 ? 0 : 1)};
}

const browserProblem = () =>
    findBrowser() ? undefined : 'no browser: install chromium or Google Chrome, or set CHROME_BIN';

const PARTS = {
  types: {
    title: 'WGSL embedded, types checked',
    run() {
      embedWgsl();
      return check(node(['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']));
    },
  },
  lint: {
    title: 'ESLint',
    run: () => check(node(['node_modules/eslint/bin/eslint.js', '--max-warnings', '0', '.'])),
  },
  figures: {
    title: 'The figures in the README are those of benchmarks/results',
    run: () => check(node(['--import', 'tsx', 'benchmarks/figures.ts', '--check'])),
  },
  unit: {
    title: 'Unit tests in Node',
    run: () => counted('unit', ['--import', 'tsx', 'scripts/run_jasmine.mjs', 'unit']),
  },
  native: {
    title: 'The native addon in Node: backends cpu and wasm',
    // It is built by `npm run build:native` before; where it is not, this part fails.
    run: () => counted('native', ['--import', 'tsx', 'scripts/run_jasmine.mjs', 'native']),
  },
  grid: {
    title: 'The grid of cases on the TypeScript kernel',
    run: () => counted('grid', ['--import', 'tsx', 'scripts/run_jasmine.mjs', 'grid']),
  },
  sanitizers: {
    title: 'The C++ kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer',
    problem: nativeProblem,
    packages: ['g++'],
    run: () => counted('sanitizers', ['test/sanitizers/run.mjs']),
  },
  webgpu: {
    title: 'WebGPU tests in Node (Dawn on SwiftShader)',
    device: 'webgpu',
    problem: vulkanProblem,
    packages: ['chromium', 'libvulkan1'],
    run: () => counted('webgpu', ['--import', 'tsx', 'scripts/run_jasmine.mjs', 'webgpu'], swiftShaderEnv()),
  },
  matrix: {
    title: 'Subgroup matrices in Node (Dawn on lavapipe)',
    device: 'matrix',
    problem: lavapipeProblem,
    packages: ['debian-archive-keyring'],
    run() {
      const {command, env} = lavapipeLauncher();
      return counted('matrix', ['--import', 'tsx', 'scripts/run_jasmine.mjs', 'matrix'], env, command);
    },
  },
  browser: {
    title: 'WebGPU tests in a headless browser (SwiftShader)',
    device: 'webgpu',
    problem: browserProblem,
    packages: ['chromium', 'libvulkan1'],
    run: () => counted('browser', ['node_modules/karma/bin/karma', 'start']),
  },
  page: {
    title: 'The demo and benchmark pages in a headless browser (SwiftShader)',
    device: 'webgpu',
    problem: browserProblem,
    packages: ['chromium', 'libvulkan1'],
    run: () => counted('page', ['test/browser/pages.mjs']),
  },
  package: {
    title: 'The packed package, as its users install it',
    run: () => counted('package', ['test/package/run.mjs']),
  },
  tensorflow: {
    title: 'setup-tfjs-node in an empty project, and what runs on the backend tensorflow',
    device: 'tensorflow',
    problem: tfjsNodeProblem,
    packages: ['g++', 'python3-pip'],
    onRequest: 'it downloads 0.3 GB; npm test -- tensorflow or REQUIRE_DEVICE=tensorflow runs it',
    run: () => counted('tensorflow', ['test/tensorflow/run.mjs']),
  },
};

const names = process.argv.slice(2).filter(name => name !== '--full');
const required = (process.env.REQUIRE_DEVICE ?? '').split(/[\s,]+/).filter(Boolean);
const devices = [...new Set(Object.values(PARTS).map(({device}) => device).filter(Boolean))];
for (const [what, asked, known] of [['part', names, Object.keys(PARTS)], ['device', required, devices]]) {
  const unknown = asked.filter(name => !known.includes(name));
  if (unknown.length > 0) {
    console.log(`There is no ${what} ${unknown.join(', ')}, only ${known.join(', ')}.\n0 passed, 1 failed`);
    process.exit(1);
  }
}

/** Why a part is left out that only runs when it is asked for, by its name or its device. */
const notAsked = (name, {device, onRequest}) =>
  names.includes(name) || required.includes(device) ? undefined : onRequest;

function runPart(name, part) {
  const {device, problem, run} = part;
  const reason = notAsked(name, part) ?? problem?.();
  if (!reason) {
    return run();
  }
  const isRequired = required.includes(device);
  console.log(isRequired ? `REQUIRE_DEVICE asks for ${device}, but there is ${reason}` : `SKIPPED: ${reason}`);
  return {passed: 0, failed: Number(isRequired), skipped: reason};
}

const selected = Object.entries(PARTS).filter(([name]) => names.length === 0 || names.includes(name));
ensureSystemPackages([...new Set(selected.flatMap(
    ([name, part]) => notAsked(name, part) ? [] : part.packages ?? []))]);
const results = [];
for (const [name, part] of selected) {
  console.log(`\n=== ${name}: ${part.title}`);
  const start = performance.now();
  const result = runPart(name, part);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`--- ${name}: ${seconds} s`);
  results.push({name, seconds, ...result});
}

console.log('\npart        passed  failed    time');
for (const {name, seconds, passed, failed, pending, skipped} of results) {
  const notes = [pending && `${pending} pending`, skipped && `${failed ? '' : 'SKIPPED: '}${skipped}`].filter(Boolean);
  console.log([
    name.padEnd(10), `${passed}`.padStart(8), `${failed}`.padStart(8), `${seconds} s`.padStart(10), '  ', ...notes,
  ].join('').trimEnd());
}
const sum = key => results.reduce((total, result) => total + result[key], 0);
console.log(`\n${sum('passed')} passed, ${sum('failed')} failed`);
process.exitCode = sum('failed') > 0 ? 1 : 0;
