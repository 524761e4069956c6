// @ts-check
// npm run bundle:cuda: what a GPU machine without a network needs to judge the CUDA kernels, in
// build/tfjs-flash-attention-cuda.tar.xz: test/cuda/runner.cc with all kernels in it, and Node with the program that
// makes the calls of the case table and what they should give (seconds there, hundreds of megabytes here). There:
// tar xf …, then ./run [--compute=…] [--seeds=0,1,2] [options of the runner].
//   --architectures=90a,80   kernels for these alone: for trying things out
//   --folder                 leaves it in build/cuda_bundle, unpacked
import {execFileSync} from 'node:child_process';
import {chmodSync, cpSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {build as bundle} from 'esbuild';

import {buildImages} from './build_cuda/build.mjs';
import {findNvcc, REMEDY} from './build_cuda/nvcc.mjs';
import {benchmarkFolder} from './build_cuda_benchmark.mjs';
import {ARCHITECTURES} from './build_cuda/plan.mjs';
import {build, machineVariant, sourcesIn} from './build_native/build.mjs';
import {embedWgsl} from './embed_wgsl.mjs';
import {gitCommit} from './git_commit.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const targets = process.argv.find(arg => arg.startsWith('--architectures='))?.split('=')[1].split(',');
const unknown = process.argv.slice(2).filter(arg => arg !== '--folder' && !arg.startsWith('--architectures='));
if (unknown.length > 0 || targets?.some(target => target !== 'ptx' && !ARCHITECTURES.includes(target))) {
  console.error('npm run bundle:cuda: expected --folder or --architectures= and some of ' +
      `${ARCHITECTURES.join(',')},ptx, received ${process.argv.slice(2).join(' ')}`);
  process.exit(2);
}

const FOLDER = 'build/cuda_bundle';
const ARCHIVE = 'build/tfjs-flash-attention-cuda.tar.xz';

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error('npm run bundle:cuda: the bundle is for Linux on x64 and carries this machine\'s Node; run it there');
  process.exit(2);
}
const nvcc = await findNvcc();
if (!nvcc) {
  console.error(`npm run bundle:cuda: there is no nvcc of CUDA 13 or newer. ${REMEDY}`);
  process.exit(2);
}

embedWgsl();
rmSync(FOLDER, {recursive: true, force: true});
mkdirSync(FOLDER, {recursive: true});
const {output: images} = await buildImages(nvcc,
    {lists: ['kernels/cuda/instances.txt', 'test/cuda/instances.txt'], folder: 'build/cuda_test', targets});
const sources = [...sourcesIn('kernels/cpu'), ...sourcesIn('kernels/cuda'), ...sourcesIn('kernels/cuda/hopper'),
  ...['check_strides', 'description', 'device_kernels', 'run_call', 'tensorflow_gpu_call']
      .map(name => `kernels/addon/${name}.cc`), images,
  'test/cuda/runner.cc'];
await build({...await machineVariant(), name: 'cuda_runner'},
    {kind: 'program', sources, output: `${FOLDER}/runner`, includes: ['test', 'test/cuda']});

await bundle({
  entryPoints: {dump_cases: 'test/sanitizers/dump_cases.ts'}, outdir: FOLDER, outExtension: {'.js': '.mjs'},
  bundle: true, platform: 'node', format: 'esm', target: 'node20', external: ['webgpu'], logLevel: 'warning',
  // One copy of each tfjs package: their "module" builds differ from what require() among them finds.
  mainFields: ['main'],
  banner: {js: 'import {createRequire as makeRequire} from \'node:module\'; import {fileURLToPath as toPath} from ' +
    '\'node:url\'; const require = makeRequire(import.meta.url); const __filename = toPath(import.meta.url); ' +
    'const __dirname = toPath(new URL(\'.\', import.meta.url));'},
});
cpSync(process.execPath, join(FOLDER, 'node'), {dereference: true});
chmodSync(join(FOLDER, 'node'), 0o755);
for (const binary of ['node', 'runner']) {
  execFileSync('strip', [join(FOLDER, binary)]);
}
await benchmarkFolder(images, join(FOLDER, 'benchmark'));
writeFileSync(join(FOLDER, 'commit'), `${gitCommit()}\n`);
cpSync('test/cuda/run_bundle.sh', join(FOLDER, 'run'));
chmodSync(join(FOLDER, 'run'), 0o755);
const kB = (/** @type {string} */ path) => `${(statSync(path).size / 1000).toFixed(0)} kB`;
console.log(`runner ${kB(`${FOLDER}/runner`)}, commit ${readFileSync(`${FOLDER}/commit`, 'utf8').trim()}`);
if (!process.argv.includes('--folder')) {
  execFileSync('tar', ['cJf', ARCHIVE, '-C', FOLDER, '.'], {env: {...process.env, XZ_OPT: '-T0 -6'}});
  console.log(`${ARCHIVE}: ${kB(ARCHIVE)}`);
}
