// @ts-check
// From the sources in kernels/cpu and kernels/addon to an addon, and to programs of the tests that share them.
import {existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {basename, dirname, join, relative} from 'node:path';
import {fileURLToPath} from 'node:url';

import {buildImages, imagesForAddon} from '../build_cuda/build.mjs';
import {machineArchitectures} from '../build_cuda/gpus.mjs';
import {findNvcc} from '../build_cuda/nvcc.mjs';
import {findCompiler, findNodeHeaders} from '../setup_tfjs_node/compile.mjs';
import {SetupError} from '../setup_tfjs_node/errors.mjs';
import {Report} from '../setup_tfjs_node/report.mjs';
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {compileAll, link} from './compile.mjs';
import {compileSteps, linkFlags, PREBUILT_TARGET, VERSION_SCRIPT} from './plan.mjs';
import {findZig, ZIG_VERSION} from './zig.mjs';

/** @typedef {import('./plan.mjs').Variant} Variant @typedef {import('./plan.mjs').Sanitizer} Sanitizer */

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const ADDON = 'build/native/flash_attention.node';
export const PREBUILT = 'prebuilds/linux-x64/flash_attention.node';

/** Node-API 8 is in every Node since 12.22. The addon's own code catches what C++ throws. */
const DEFINES = ['NAPI_VERSION=8', 'NAPI_DISABLE_CPP_EXCEPTIONS'];

const print = (/** @type {string} */ line) => console.log(line);

/** The .cc files of a folder. @param {string} folder @returns {string[]} */
export function sourcesIn(folder) {
  const names = existsSync(join(ROOT, folder)) ? readdirSync(join(ROOT, folder)) : [];
  return names.filter(name => name.endsWith('.cc')).map(name => `${folder}/${name}`).sort();
}

export const objectsFolder = (/** @type {Variant} */ {name}) => `build/native/objects/${name}`;

/** For this machine. @param {Sanitizer[]} sanitizers @returns {Promise<Variant>} */
export async function machineVariant(sanitizers = []) {
  const {arch, platform} = process;
  if (platform !== 'linux' && platform !== 'darwin') {
    throw new SetupError(`the native addon is for Linux and macOS, and this is ${platform}`,
        'Without it the TypeScript kernel computes. On Windows use WSL 2.');
  }
  const name = sanitizers.length > 0 ? sanitizers.join('_') : 'release';
  return {name, compiler: await findCompiler(), arch, platform, sanitizers, isPrebuilt: false};
}

/** @param {string[]} command of zig @returns {Variant} */
export const prebuiltVariant = command => ({
  name: 'prebuilt', compiler: [...command, '-target', PREBUILT_TARGET], arch: 'x64', platform: 'linux', sanitizers: [],
  isPrebuilt: true,
});

/** The folder of napi.h, relative where it is in the checkout. */
function nodeAddonApi() {
  let folder;
  try {
    folder = dirname(createRequire(join(ROOT, 'package.json')).resolve('node-addon-api/package.json'));
  } catch {
    throw new SetupError('node-addon-api is not in node_modules', 'Run npm ci, or npm install.');
  }
  const inside = join(ROOT, 'node_modules/node-addon-api');
  return existsSync(inside) ? 'node_modules/node-addon-api' : relative(ROOT, folder);
}

/**
 * @typedef {object} Target
 * @property {'addon' | 'program' | 'library'} kind library: one of the tests, that shows all it has
 * @property {string[]} sources relative to the repository
 * @property {string} output likewise
 * @property {string[]} [includes] folders besides `kernels`, likewise
 * @property {string[]} [defines] besides those of the addon
 * @param {Variant} variant
 * @param {Target} target
 * @param {{env?: NodeJS.ProcessEnv, log?: (line: string) => void}} [options]
 * @returns {Promise<{isNew: boolean, bytes: number}>}
 */
export async function build(variant, {kind, sources, output, includes = [], defines = []}, {env, log = print} = {}) {
  process.chdir(ROOT);
  const [compiler, ...options] = variant.compiler;
  const identity = variant.isPrebuilt ? ZIG_VERSION : (await runTool(compiler, [...options, '--version'])).stdout;
  const headers = kind === 'addon' ?
    [nodeAddonApi(), await findNodeHeaders('build/native/headers', new Report(1, {write: text => log(text.trim())}))] :
    [];
  const steps = compileSteps(variant, {
    sources, includes: ['kernels', ...includes, ...headers], defines: [...DEFINES, ...defines],
    objects: objectsFolder(variant) + (kind === 'addon' ? '' : '/programs'),
  });
  const compiled = await compileAll(compiler, identity, steps, {cwd: ROOT, env, log});
  const script = 'build/native/exports.txt';
  mkdirSync(dirname(script), {recursive: true});
  if (!existsSync(script) || readFileSync(script, 'utf8') !== VERSION_SCRIPT) {
    writeFileSync(script, VERSION_SCRIPT);
  }
  const objects = steps.map(({object}) => object);
  const args = [...options, ...linkFlags(variant, kind, script), ...objects];
  const record = `${dirname(objects[0])}/${basename(output)}.json`;
  const linked = await link(compiler, identity, args, [script, ...objects], output, {cwd: ROOT, env, record});
  return {isNew: compiled > 0 || linked, bytes: statSync(output).size};
}

/** What the addon is made of. @param {string} images the source with its CUDA kernels */
export function addonSources(images) {
  const sources = [...sourcesIn('kernels/cpu'), ...sourcesIn('kernels/addon'), ...sourcesIn('kernels/cuda'),
    ...sourcesIn('kernels/cuda/hopper'), images];
  for (const file of ['kernels/cpu/isa_portable.cc', 'kernels/addon/addon.cc']) {
    if (!sources.includes(file)) {
      throw new SetupError(`${file} is not there`, 'The sources are in the repository only, not in the npm package.');
    }
  }
  return sources;
}

/**
 * Of the last npm run build:cuda. @param {(line: string) => void} log
 * @param {boolean} makesThem where there are none, but nvcc and a GPU, for that
 */
async function images(log, makesThem) {
  let {source, kernels, isStale} = imagesForAddon();
  const nvcc = !kernels && makesThem ? await findNvcc() : undefined;
  const targets = nvcc ? await machineArchitectures() : [];
  if (nvcc && targets.length > 0) {
    log(`build:native: CUDA kernels for this machine's GPU (${targets.join(', ')}), which takes minutes`);
    await buildImages(nvcc, {targets, log});
    ({source, kernels, isStale} = imagesForAddon());
  }
  if (!kernels) {
    log(`build:native: without CUDA kernels${isStale ? ', for those in build/cuda are of older sources' : ''}; ` +
        'npm run build:cuda makes them (it needs nvcc)');
  }
  return source;
}

/**
 * For this machine. @param {Sanitizer[]} sanitizers @param {(line: string) => void} [log]
 * @param {{makesImages?: boolean}} [options] see {@link images}
 */
export async function buildAddon(sanitizers = [], log = print, {makesImages = false} = {}) {
  const variant = await machineVariant(sanitizers);
  const output = sanitizers.length > 0 ? `build/native/${variant.name}/flash_attention.node` : ADDON;
  const sources = addonSources(await images(log, makesImages));
  const result = await build(variant, {kind: 'addon', sources, output}, {log});
  return {...result, output, compiler: variant.compiler.join(' ')};
}

/** For the npm package. @param {(line: string) => void} [log] */
export async function buildPrebuilt(log = print) {
  const {command, env} = await findZig(log);
  const sources = addonSources(await images(log, false));
  const target = /** @type {Target} */ ({kind: 'addon', sources, output: PREBUILT});
  const result = await build(prebuiltVariant(command), target, {env, log});
  return {...result, output: PREBUILT, compiler: `zig ${ZIG_VERSION} for ${PREBUILT_TARGET}`};
}
