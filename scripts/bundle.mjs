// npm run bundle: everything that the benchmarks, the case table and the main job need on a Linux x64 machine without a
// network, in build/tfjs-flash-attention-bundle.tar.xz: Node itself, Dawn, the Vulkan loader if it is found here, the
// text, and the programs as single files. There: tar xf …, then ./run, which says what it runs.
// With the native addon, and its CUDA kernels, where npm run build:native (and npm run build:cuda) have made them here.
// With --peers also build/onnxruntime-bundle.tar.xz, to be unpacked in the same folder, which ./run bench and
// ./run peers compare with.
import {execFileSync} from 'node:child_process';
import {chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {build} from 'esbuild';

import {ADDON} from './build_native/build.mjs';
import {embedWgsl} from './embed_wgsl.mjs';
import {fetchOnnxruntime} from './fetch_onnxruntime.mjs';
import {gitCommit} from './git_commit.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

const FOLDER = 'build/bundle';
const PEERS_FOLDER = 'build/onnxruntime_bundle';
const ARCHIVE = 'build/tfjs-flash-attention-bundle.tar.xz';
const PEERS_ARCHIVE = 'build/onnxruntime-bundle.tar.xz';
/** For the archives together. */
const LIMIT = 60 * 2 ** 20;

const PROGRAMS = {
  bench_worker: 'benchmarks/worker.ts', // what the benchmarks start to measure in
  benchmarks: 'benchmarks/run.ts',
  lab: 'benchmarks/kernel_lab.ts',
  onnxruntime_worker: 'benchmarks/onnxruntime/worker.ts',
  options: 'benchmarks/option_cost.ts',
  probe_webgpu: 'examples/train_gpt/probe_webgpu.ts', // what train starts to look for a GPU
  soak: 'test/soak_device.ts',
  train: 'examples/train_gpt/main.ts',
  tune: 'benchmarks/tune.ts',
  verify: 'test/verify_device.ts',
};
/** What `run` takes: commands of benchmarks/run.ts, and programs. */
const BENCHMARKS = ['bench', 'decode', 'host', 'peers', 'train-bench'];
const COMMANDS = [...BENCHMARKS, 'lab', 'options', 'soak', 'train', 'tune', 'verify'];

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error('npm run bundle: the bundle is for Linux on x64 and carries this machine\'s Node; run it there');
  process.exit(2);
}

embedWgsl();
rmSync(FOLDER, {recursive: true, force: true});
mkdirSync(join(FOLDER, 'lib'), {recursive: true});

await build({
  entryPoints: PROGRAMS,
  outdir: join(FOLDER, 'app'),
  outExtension: {'.js': '.mjs'},
  bundle: true, platform: 'node', format: 'esm', target: 'node20', external: ['webgpu'], logLevel: 'warning',
  // One copy of each tfjs package: their "module" builds differ from what require() among them finds.
  mainFields: ['main'],
  banner: {js: 'import {createRequire as makeRequire} from \'node:module\'; import {fileURLToPath as toPath} from ' +
    '\'node:url\'; const require = makeRequire(import.meta.url); const __filename = toPath(import.meta.url); ' +
    'const __dirname = toPath(new URL(\'.\', import.meta.url));'},
});

const copy = (from, to) => cpSync(from, join(FOLDER, to), {recursive: true, dereference: true});

copy(process.execPath, 'node');
copy('node_modules/webgpu/package.json', 'node_modules/webgpu/package.json');
copy('node_modules/webgpu/index.js', 'node_modules/webgpu/index.js');
copy('node_modules/webgpu/LICENSE.md', 'node_modules/webgpu/LICENSE.md');
copy('node_modules/webgpu/dist/linux-x64', 'node_modules/webgpu/dist/linux-x64');
for (const name of ['tfjs-backend-wasm.wasm', 'tfjs-backend-wasm-simd.wasm', 'tfjs-backend-wasm-threaded-simd.wasm']) {
  copy(`node_modules/@tensorflow/tfjs-backend-wasm/dist/${name}`, `app/${name}`);
}
copy('examples/data', 'data');
copy('LICENSE', 'LICENSE');
const hasAddon = existsSync(ADDON);
if (hasAddon) {
  copy(ADDON, 'flash_attention.node');
} else {
  console.log('no native addon here (npm run build:native): the TypeScript kernel will serve');
}
for (const binary of ['node', 'node_modules/webgpu/dist/linux-x64/dawn.node']) {
  chmodSync(join(FOLDER, binary), 0o755);
  execFileSync('strip', [join(FOLDER, binary)]);
}
const loader = ['/usr/lib/x86_64-linux-gnu/libvulkan.so.1', '/usr/lib64/libvulkan.so.1', '/usr/lib/libvulkan.so.1']
    .find(existsSync);
if (loader) {
  copy(loader, 'lib/libvulkan.so.1');
} else {
  console.log('no Vulkan loader here: the other machine needs libvulkan.so.1');
}

const commit = gitCommit();
const {version} = JSON.parse(readFileSync('node_modules/webgpu/package.json', 'utf8'));
writeFileSync(join(FOLDER, 'run'), `#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
program=$1
case $program in
  ${BENCHMARKS.join('|')}) program=benchmarks ;;
  ${COMMANDS.filter(name => !BENCHMARKS.includes(name)).join('|')}) shift ;;
  *)
    echo "usage: ./run ${COMMANDS.join(' | ')} [options]" >&2
    exit 2
    ;;
esac
export BUNDLE_COMMIT=${commit} BUNDLE_WEBGPU=${version}
${hasAddon ? 'export FLASH_ATTENTION_ADDON="$here/flash_attention.node"' : ''}
# The machine's own Vulkan loader, where it has one, knows its drivers best.
if ! ldconfig -p 2>/dev/null | grep -q libvulkan.so.1; then
  export LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
exec "$here/node" "$here/app/$program.mjs" "$@"
`);
chmodSync(join(FOLDER, 'run'), 0o755);

/** Packs a folder's contents; gives the archive's size. */
function pack(archive, folder) {
  execFileSync('tar', ['cJf', archive, '-C', folder, '.'], {env: {...process.env, XZ_OPT: '-T0 -6'}});
  const {size} = statSync(archive);
  console.log(`${archive}: ${(size / 2 ** 20).toFixed(1)} MiB, commit ${commit}`);
  return size;
}

/** The Linux library of onnxruntime-node and the JavaScript around it, under the name that the programs look for. */
function packPeers() {
  const from = fetchOnnxruntime();
  rmSync(PEERS_FOLDER, {recursive: true, force: true});
  for (const path of [
    'onnxruntime-node/package.json', 'onnxruntime-node/dist', 'onnxruntime-node/bin/napi-v6/linux/x64',
    'onnxruntime-common/package.json', 'onnxruntime-common/dist/cjs',
  ]) {
    cpSync(join(from, 'node_modules', path), join(PEERS_FOLDER, 'onnxruntime/node_modules', path), {recursive: true});
  }
  return pack(PEERS_ARCHIVE, PEERS_FOLDER);
}

const size = pack(ARCHIVE, FOLDER) + (process.argv.includes('--peers') ? packPeers() : 0);
if (size > LIMIT) {
  console.error(`over the ${LIMIT / 2 ** 20} MiB that they may have`);
  process.exit(1);
}
