// @ts-check
// node scripts/build_cuda_benchmark.mjs: what a machine with a GPU and PyTorch, and neither Node nor a network, needs
// to measure the CUDA kernels beside PyTorch's, in build/cuda_benchmark. There: python3 compare.py [--seconds=540]
//   --architectures=90a,80   kernels for these only
import {copyFileSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';

import {buildImages} from './build_cuda/build.mjs';
import {findNvcc, REMEDY} from './build_cuda/nvcc.mjs';
import {build, machineVariant, sourcesIn} from './build_native/build.mjs';
import {gitCommit} from './git_commit.mjs';

const FOLDER = 'build/cuda_benchmark';
const SOURCES = 'benchmarks/cuda';
const LIBRARY = 'libflash_attention_cuda.so';

/**
 * The library of benchmarks/cuda/library.cc.
 * @param {string[]} images sources that give it its kernels
 * @param {string} output
 * @param {(line: string) => void} [log]
 */
export async function buildBenchmarkLibrary(images, output, log) {
  const sources = [...sourcesIn('kernels/cpu'), ...sourcesIn('kernels/cuda'), ...sourcesIn('kernels/cuda/hopper'),
    ...images, `${SOURCES}/library.cc`];
  return build(await machineVariant(), {kind: 'library', sources, output}, {log});
}

/**
 * All of it in a folder, for whoever packs a bundle.
 * @param {string} images source of the table of kernels, as buildImages has it
 * @param {string} [folder]
 */
export async function benchmarkFolder(images, folder = FOLDER) {
  rmSync(folder, {recursive: true, force: true});
  mkdirSync(folder, {recursive: true});
  await buildBenchmarkLibrary([images], `${folder}/${LIBRARY}`);
  for (const name of readdirSync(SOURCES).filter(name => name.endsWith('.py'))) {
    copyFileSync(`${SOURCES}/${name}`, `${folder}/${name}`);
  }
  writeFileSync(`${folder}/commit`, `${gitCommit()}\n`);
  return {folder, bytes: statSync(`${folder}/${LIBRARY}`).size};
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.chdir(fileURLToPath(new URL('..', import.meta.url)));
  const nvcc = await findNvcc();
  if (!nvcc) {
    console.error(`build_cuda_benchmark: there is no nvcc of CUDA 13 or newer. ${REMEDY}`);
    process.exit(2);
  }
  const targets = process.argv.find(arg => arg.startsWith('--architectures='))?.split('=')[1].split(',');
  // Beside those of the addon, which always has all architectures.
  const {output} = await buildImages(nvcc, targets ? {targets, folder: `build/cuda_${targets.join('_')}`} : {});
  const {folder, bytes} = await benchmarkFolder(output);
  console.log(`${folder}: ${LIBRARY} ${(bytes / 1e6).toFixed(1)} MB, commit ${gitCommit()}; there: python3 compare.py`);
}
