// What npm test is made of.
import {embedWgsl} from '../embed_wgsl.mjs';
import {lavapipeLauncher, lavapipeProblem} from '../lavapipe.mjs';
import {findBrowser, nativeProblem, swiftShaderEnv, tfjsNodeProblem, vulkanProblem} from '../system_packages.mjs';

const browserProblem = () =>
    findBrowser() ? undefined : 'no browser: install chromium or Google Chrome, or set CHROME_BIN';

const jasmine = group => ['--import', 'tsx', 'scripts/run_jasmine.mjs', group];

/**
 * In the order in which they start, several at a time. `alone`: before all that come later; `lock`: never beside
 * another part with the same; `problem`: why it cannot run here; `device`: what REQUIRE_DEVICE calls that it needs.
 * @type {Record<string, import('./run_parts.mjs').Part>}
 */
export const PARTS = {
  types: {
    title: 'WGSL embedded, types checked',
    alone: true,
    run({check}) {
      embedWgsl();
      return check(['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']);
    },
  },
  lint: {
    title: 'ESLint',
    run: ({check}) => check(['node_modules/eslint/bin/eslint.js', '--max-warnings', '0', '.']),
  },
  figures: {
    title: 'The figures in the README are those of benchmarks/results',
    run: ({check}) => check(['--import', 'tsx', 'benchmarks/figures.ts', '--check']),
  },
  unit: {
    title: 'Unit tests in Node',
    run: ({counted}) => counted('unit', jasmine('unit')),
  },
  matrix: {
    title: 'Subgroup matrices in Node (Dawn on lavapipe)',
    device: 'matrix',
    problem: lavapipeProblem,
    packages: ['debian-archive-keyring'],
    run({counted}) {
      const {command, env} = lavapipeLauncher();
      return counted('matrix', jasmine('matrix'), {env, command});
    },
  },
  webgpu: {
    title: 'WebGPU tests in Node (Dawn on SwiftShader)',
    device: 'webgpu',
    problem: vulkanProblem,
    packages: ['chromium', 'libvulkan1'],
    run: ({counted}) => counted('webgpu', jasmine('webgpu'), {env: swiftShaderEnv()}),
  },
  browser: {
    title: 'WebGPU tests in a headless browser (SwiftShader)',
    device: 'webgpu',
    problem: browserProblem,
    packages: ['chromium', 'libvulkan1'],
    run: ({counted}) => counted('browser', ['node_modules/karma/bin/karma', 'start']),
  },
  native: {
    title: 'The native addon in Node: backends cpu and wasm',
    problem: nativeProblem,
    packages: ['g++'],
    lock: 'addon',
    async run({check, counted}) {
      const built = await check(['scripts/build_native.mjs']);
      return built.failed ? built : counted('native', jasmine('native'));
    },
  },
  native_cuda: {
    title: 'The native addon on a fake CUDA device',
    problem: nativeProblem,
    packages: ['g++'],
    lock: 'addon',
    async run({check, counted}) {
      const built = await check(['test/cuda/build_programs.mjs']);
      return built.failed ? built : counted('native_cuda', jasmine('native_cuda'));
    },
  },
  cuda: {
    title: 'CUDA without a GPU: the compiler\'s report, the kernels emulated, the host\'s part on a fake libcuda',
    problem: nativeProblem,
    packages: ['g++', 'python3-pip'], // which fetches nvcc
    lock: 'addon', // and its kernels, which npm pack takes
    run: ({counted}) => counted('cuda', ['test/cuda/run.mjs']),
  },
  tensorflow: {
    title: 'setup-tfjs-node in an empty project, and what runs on the backend tensorflow',
    device: 'tensorflow',
    problem: tfjsNodeProblem,
    packages: ['g++', 'python3-pip'],
    onRequest: 'it downloads 0.3 GB; npm test -- tensorflow or REQUIRE_DEVICE=tensorflow runs it',
    lock: 'addon', // and the package: both build it
    run: ({counted}) => counted('tensorflow', ['test/tensorflow/run.mjs']),
  },
  grid: {
    title: 'The grid of cases on the TypeScript kernel',
    run: ({counted}) => counted('grid', jasmine('grid')),
  },
  sanitizers: {
    title: 'The C++ kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer',
    problem: nativeProblem,
    packages: ['g++'],
    run: ({counted}) => counted('sanitizers', ['test/sanitizers/run.mjs']),
  },
  page: {
    title: 'The demo and benchmark pages in a headless browser (SwiftShader)',
    device: 'webgpu',
    problem: browserProblem,
    packages: ['chromium', 'libvulkan1'],
    run: ({counted}) => counted('page', ['test/browser/pages.mjs']),
  },
  package: {
    title: 'The packed package, as its users install it',
    packages: ['g++', 'python3-pip'], // for its prebuilt addon, and to look into that
    lock: 'addon',
    run: ({counted}) => counted('package', ['test/package/run.mjs']),
  },
};
