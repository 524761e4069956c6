// Runs one group of specs in Node: node --import tsx scripts/run_jasmine.mjs <group> [--filter=<text>] [--seed=<n>]
// Fails where no spec is found, where some are focused (fit, fdescribe), and on errors that nobody caught.
import {mkdirSync, writeFileSync} from 'node:fs';
import {resolve} from 'node:path';
import {setTimeout} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';

import Jasmine from 'jasmine';

const GROUPS = {
  unit: {helpers: ['test/support/cpu_backend.ts'], spec_files: ['test/unit/**/*.spec.ts']},
  grid: {spec_files: ['test/grid/**/*.spec.ts']},
  webgpu: {
    helpers: ['test/support/node_webgpu.ts'],
    spec_files: ['test/webgpu/**/*.spec.ts', 'test/node_webgpu/**/*.spec.ts'],
  },
  native: {spec_files: ['test/native/**/*.spec.ts']},
  native_cuda: {spec_files: ['test/native_cuda/**/*.spec.ts']},
  matrix: {helpers: ['test/support/node_webgpu.ts'], spec_files: ['test/matrix/**/*.spec.ts']},
};

const [group, ...options] = process.argv.slice(2);
const option = name => options.find(text => text.startsWith(`--${name}=`))?.slice(name.length + 3);

if (group === 'native_cuda') {
  // What test/cuda/build_programs.mjs makes.
  process.env.FLASH_ATTENTION_ADDON = resolve('build/cuda_host/flash_attention.node');
  process.env.FLASH_ATTENTION_LIBCUDA = resolve('build/cuda_host/fake_libcuda.so');
} else if (group !== 'native') {
  process.env.FLASH_ATTENTION_NATIVE = 'off'; // specs of the TypeScript kernel would judge the addon
}

/** `failures` are in words. */
const counts = {passed: 0, failed: 0, pending: 0, failures: []};
const times = [];

function noteFailures(where, failedExpectations) {
  counts.failures.push(...failedExpectations.map(({message}) => `${where}: ${message}`));
}

const counter = {
  specDone({fullName, status, duration, failedExpectations}) {
    if (status in counts) {
      counts[status]++;
    }
    noteFailures(fullName, failedExpectations);
    times.push({fullName, duration});
  },
  suiteDone({fullName, failedExpectations}) { // in beforeAll or afterAll
    noteFailures(fullName, failedExpectations);
  },
  jasmineDone({overallStatus, incompleteReason, failedExpectations}) {
    if (overallStatus !== 'passed' && counts.failed === 0) {
      counts.failed = 1; // outside any spec: none found, some focused, an error while loading or in afterAll
      counts.failures.push(incompleteReason ?? overallStatus);
    }
    noteFailures('outside any spec', failedExpectations);
    console.log('Slowest:');
    for (const {fullName, duration} of times.sort((a, b) => b.duration - a.duration).slice(0, 3)) {
      console.log(`  ${(duration / 1000).toFixed(1)} s  ${fullName}`);
    }
    mkdirSync('build', {recursive: true});
    writeFileSync(`build/${group}_counts.json`, JSON.stringify(counts));
  },
};

const jasmine = new Jasmine({projectBaseDir: fileURLToPath(new URL('..', import.meta.url))});
await jasmine.loadConfig({
  ...GROUPS[group],
  spec_dir: '.',
  env: {random: true, seed: option('seed'), failSpecWithNoExpectations: true, detectLateRejectionHandling: true},
  reporters: [counter],
  defaultReporter: {
    randomSeedReproductionCmd: seed => `node --import tsx scripts/run_jasmine.mjs ${group} --seed=${seed}`,
  },
});
jasmine.jasmine.DEFAULT_TIMEOUT_INTERVAL = 120_000;
jasmine.exitOnCompletion = false;
const {overallStatus} = await jasmine.execute(undefined, option('filter'));
await setTimeout(200); // an error that comes after the last spec ends the process here
process.exit(overallStatus === 'passed' ? 0 : 1); // Dawn keeps Node alive
