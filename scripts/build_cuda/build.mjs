// @ts-check
// From the list of units to the source that carries them into the addon.
import {createHash} from 'node:crypto';
import {existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {availableParallelism} from 'node:os';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {isUpToDate} from '../build_native/compile.mjs';
import {parseDepends} from '../build_native/plan.mjs';
import {toolError} from '../setup_tfjs_node/errors.mjs';
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {compileSteps, imagesSource, parseInstances} from './plan.mjs';
import {parseReport} from './ptxas_report.mjs';

/** @typedef {import('./plan.mjs').Unit} Unit @typedef {import('./plan.mjs').Step} Step */
/** @typedef {import('./nvcc.mjs').Nvcc} Nvcc */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const FOLDER = 'build/cuda';
/** What the addon is linked with. */
export const IMAGES = `${FOLDER}/images.cc`;
const INSTANCES = 'kernels/cuda/instances.txt';

/** @param {string} path @param {string} text */
function writeIfOther(path, text) {
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
    mkdirSync(dirname(path), {recursive: true});
    writeFileSync(path, text);
  }
}

/** Compiles what has changed. @param {Nvcc} nvcc @param {Step[]} steps @param {(line: string) => void} log */
async function compileAll(nvcc, steps, log) {
  const commandOf = (/** @type {Step} */ {args}) => [`nvcc ${nvcc.version}`, nvcc.path, ...args];
  const stale = steps.filter(step => !isUpToDate(step.image, commandOf(step)));
  const waiting = [...stale];
  let done = 0;
  let isFailed = false;
  const worker = async () => {
    for (let step = waiting.shift(); step && !isFailed; step = waiting.shift()) {
      const {unit, target, image, report, depends, args} = step;
      const time = Date.now();
      mkdirSync(dirname(image), {recursive: true});
      rmSync(`${image}.json`, {force: true});
      const {ok, output} = await runTool(nvcc.path, args, {cwd: ROOT});
      if (!ok) {
        isFailed = true;
        throw toolError(`${unit.name} could not be compiled for ${target}`, output,
            {otherwise: 'See the message of nvcc above.'});
      }
      writeFileSync(report, output);
      const inputs = parseDepends(readFileSync(depends, 'utf8'));
      writeFileSync(`${image}.json`, JSON.stringify({command: commandOf(step), time, inputs}));
      log(`[${++done}/${stale.length}] ${unit.name} for ${target} (${((Date.now() - time) / 1000).toFixed(1)} s)`);
    }
  };
  const outcomes = await Promise.allSettled(Array.from({length: availableParallelism()}, worker));
  const failed = outcomes.find(outcome => outcome.status === 'rejected');
  if (failed?.status === 'rejected') {
    throw failed.reason;
  }
  return stale.length;
}

/** Removes what other lists have left. @param {string} folder @param {Step[]} steps */
function removeOthers(folder, steps) {
  const kept = new Set(steps.flatMap(({image, report, depends}) => [image, `${image}.json`, report, depends]));
  for (const name of readdirSync(folder)) {
    if (/\.(sm_\w+|ptx_\d+)\.(fatbin|txt|d|fatbin\.json)$/.test(name) && !kept.has(`${folder}/${name}`)) {
      rmSync(join(folder, name));
    }
  }
}

/** Bytes by target, a line for each. @param {Step[]} steps @returns {Map<string, number>} */
export function sizesOf(steps) {
  const sizes = new Map();
  for (const {target, image} of steps) {
    sizes.set(target, (sizes.get(target) ?? 0) + statSync(image).size);
  }
  return sizes;
}

/**
 * @param {Nvcc} nvcc
 * @param {object} [options]
 * @param {string[]} [options.lists] of units
 * @param {string} [options.folder] of the results
 * @param {string[]} [options.targets] only these; for trying things out
 * @param {string[]} [options.only] units whose names hold one of these; likewise
 * @param {(line: string) => void} [options.log]
 * @returns {Promise<{compiled: number, sizes: Map<string, number>, kernels: number, output: string}>}
 */
export async function buildImages(nvcc, {lists = [INSTANCES], folder = FOLDER, targets, only,
  log = line => console.log(line)} = {}) {
  process.chdir(ROOT);
  const units = lists.flatMap(path => parseInstances(readFileSync(path, 'utf8'), path))
      .filter(({name}) => !only || only.some(part => name.includes(part)))
      .map(unit => ({...unit, targets: unit.targets.filter(target => !targets || targets.includes(target))}));
  const steps = units.flatMap(unit => compileSteps(unit, folder));
  mkdirSync(folder, {recursive: true});
  removeOthers(folder, steps);
  const compiled = await compileAll(nvcc, steps, log);
  const hash = createHash('sha256');
  steps.forEach(({image}) => hash.update(readFileSync(image)));
  const kernels = units.flatMap((unit, n) => {
    const names = steps.filter(step => step.unit === unit && step.target !== 'ptx')
        .flatMap(({report}) => parseReport(readFileSync(report, 'utf8')).kernels.map(({kernel}) => kernel));
    return [...new Set(names)].map(kernel => ({kernel, unit: n}));
  });
  const output = `${folder}/images.cc`;
  writeIfOther(output, imagesSource({
    toolkit: nvcc.version, units: units.map(({name}) => name), kernels, hash: hash.digest('hex').slice(0, 16),
    images: steps.map(({unit, target, image}) => ({unit: units.indexOf(unit), target, path: image})),
  }));
  return {compiled, sizes: sizesOf(steps), kernels: kernels.length, output};
}

/**
 * Whether the images of a table are those of the sources as they are: the host's part would hand others what they do
 * not expect. @param {string} table
 */
export function areFresh(table) {
  const images = [...readFileSync(table, 'utf8').matchAll(/\.incbin \\"([^"\\]+)\\"/g)].map(([, path]) => path);
  return images.length > 0 && images.every(image => {
    try {
      return isUpToDate(image, JSON.parse(readFileSync(`${image}.json`, 'utf8')).command);
    } catch {
      return false;
    }
  });
}

/**
 * The table for an addon: that of the last build, or an empty one. @param {string} platform
 * @returns {{source: string, kernels: boolean, isStale: boolean}} isStale: there are images of older sources, left out
 */
export function imagesForAddon(platform = process.platform) {
  process.chdir(ROOT);
  const isThere = platform === 'linux' && existsSync(IMAGES);
  if (isThere && areFresh(IMAGES)) {
    return {source: IMAGES, kernels: true, isStale: false};
  }
  const source = `${FOLDER}/no_images.cc`;
  writeIfOther(source, imagesSource({toolkit: 0, units: [], images: [], kernels: [], hash: 'none'}));
  return {source, kernels: false, isStale: isThere};
}

