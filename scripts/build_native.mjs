// @ts-check
// npm run build:native: the native addon, for this machine, into build/native; only what has changed is compiled. With
// the CUDA kernels of the last npm run build:cuda; without such, with those for this machine's GPU where nvcc is there.
//   --sanitize=address[,undefined] | undefined | thread   with a sanitizer, into build/native/<name>
//   --prebuilt      the one that the npm package carries (Linux on x64), into prebuilds; made with zig, from pip
//   --if-possible   what `npm ci` does: where something is missing, says so and ends well
// The same machine's compiler makes it as that of setup-tfjs-node: CXX, g++, c++ or clang++.
import {buildAddon, buildPrebuilt} from './build_native/build.mjs';
import {SANITIZERS} from './build_native/plan.mjs';
import {explain, SetupError} from './setup_tfjs_node/errors.mjs';
import {endOnSignals} from './setup_tfjs_node/half_done.mjs';

const args = process.argv.slice(2);
const has = (/** @type {string} */ name) => args.includes(name);
const sanitizers = args.filter(arg => arg.startsWith('--sanitize=')).flatMap(arg => arg.slice(11).split(','));
const unknown = [
  ...args.filter(arg => !['--prebuilt', '--if-possible'].includes(arg) && !arg.startsWith('--sanitize=')),
  ...sanitizers.filter(name => !SANITIZERS.some(known => known === name)).map(name => `--sanitize=${name}`),
];
if (unknown.length > 0 || (sanitizers.includes('thread') && sanitizers.length > 1) ||
    (has('--prebuilt') && sanitizers.length > 0)) {
  console.error('build:native: expected --prebuilt, --if-possible or --sanitize=address, undefined, ' +
      `address,undefined or thread, received ${args.join(' ')}`);
  process.exit(2);
}

endOnSignals();
try {
  const start = performance.now();
  const {isNew, bytes, output, compiler} =
      await (has('--prebuilt') ? buildPrebuilt() :
        buildAddon(/** @type {any[]} */ (sanitizers), undefined, {makesImages: !has('--if-possible')}));
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const what = `${output} (${Math.round(bytes / 1000)} kB)`;
  console.log(`build:native: ${isNew ? `${what}, by ${compiler}, in ${seconds} s` : `${what} is up to date`}`);
  if (sanitizers.includes('address') || sanitizers.includes('thread')) {
    console.log('Node must be started with the sanitizer\'s library in LD_PRELOAD: see docs/NATIVE.md');
  }
} catch (error) {
  const explained = explain(error);
  if (!(explained instanceof SetupError)) {
    throw error;
  }
  if (has('--if-possible')) {
    // Two lines: npm ci goes on, and whoever needs the addon runs npm run build:native, which shows everything.
    console.log(`The native addon is left out: ${explained.message}. ${explained.remedy}`);
    console.log('Without it the TypeScript kernel computes on cpu, wasm and tensorflow. Later: npm run build:native');
  } else {
    const lines = [explained.output, `build:native: ${explained.message}`, explained.remedy];
    console.error(lines.filter(Boolean).join('\n'));
    process.exitCode = 1;
  }
}
