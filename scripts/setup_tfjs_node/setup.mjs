// @ts-check
// setup-tfjs-node: the package, TensorFlow, the addon, in this order. Whatever is there already is kept; whatever is
// made gets its name when it is complete, and the state of the package is written last.
import {existsSync, mkdirSync, renameSync, rmSync} from 'node:fs';
import {dirname, isAbsolute, join, relative, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';

import {checkMachine} from './arguments.mjs';
import {compileAddon, findCompiler, findNodeHeaders} from './compile.mjs';
import {sizeOf} from './contents.mjs';
import {linkFiles, onSameDisk, requireSpace} from './disk.mjs';
import {cacheFolder, downloadTensorFlow} from './download.mjs';
import {toolError} from './errors.mjs';
import {discard, finish, partialPath, removeLeftovers} from './half_done.mjs';
import {Report} from './report.mjs';
import {runTool} from './run_tool.mjs';
import {problems, readState, removeState, sizes, writeState} from './state.mjs';
import {findPython, fits, givenTensorFlow, installedTensorFlow, pipPackage, TENSORFLOW_VERSION} from './tensorflow.mjs';
import {addonPlace, ensurePackage, packageName, replaceOldUtil, twoCopies} from './tfjs_node.mjs';

const LOAD = fileURLToPath(new URL('load_addon.cjs', import.meta.url));
const OWN_LIBRARIES = 'deps'; // in the package, as its own install script has it

/** @typedef {import('./tensorflow.mjs').TensorFlow} TensorFlow */

/**
 * TensorFlow to build against and to use in place (`found`), or the one to put into the package.
 * @typedef {{words: string, found: TensorFlow} | {words: string, folder: string, files: string[]}} Source
 * @param {import('./arguments.mjs').Request} request
 * @param {TensorFlow | undefined} given
 * @param {Report} report
 * @returns {Promise<Source>}
 */
async function findSource(request, given, report) {
  const python = given ? undefined : await findPython();
  const installed = python && !request.download ? await installedTensorFlow(python) : undefined;
  const found = given ?? (installed && fits(installed, request.gpu) ? installed : undefined);
  if (found) {
    const words = `TensorFlow ${found.version ?? ''} in ${found.libDir}`.replace('  ', ' ');
    report.detail(`${words}${given ? '' : ', which Python has (--download gets another)'}: used where it is`);
    return {words, found};
  }
  if (installed) {
    report.detail(`TensorFlow ${installed.version} in ${installed.libDir} is without CUDA or its libraries: not used`);
  }
  const wanted = pipPackage(process.arch, request.gpu);
  return {words: `TensorFlow ${TENSORFLOW_VERSION} of pip`, ...await downloadTensorFlow(wanted, python, report)};
}

/** Puts the libraries and headers into the package. @returns {TensorFlow} */
function placeLibraries(
    /** @type {{folder: string, files: string[]}} */ {folder, files}, /** @type {string} */ packageDir,
    /** @type {Report} */ report) {
  const target = join(packageDir, OWN_LIBRARIES);
  const isLinked = onSameDisk(folder, packageDir);
  if (!isLinked) {
    requireSpace(packageDir, files.reduce((total, file) => total + (sizeOf(join(folder, file)) ?? 0), 0));
  }
  report.detail(`${isLinked ? 'linked' : 'copied'} into ${target}`);
  linkFiles(folder, partialPath(target), files);
  finish(target);
  return givenTensorFlow(target, false);
}

/** @param {string} packageDir @returns {Promise<{ok: boolean, output: string, onGpu?: boolean}>} */
async function load(packageDir) {
  const {ok, stdout, output} = await runTool(process.execPath, [LOAD, packageDir]);
  return ok ? {ok, output, ...JSON.parse(/** @type {string} */ (stdout.trim().split('\n').at(-1)))} : {ok, output};
}

/**
 * @param {import('./arguments.mjs').Request} request
 * @param {{project: string, isGlibc: boolean}} place the user's project
 */
export async function setupTfjsNode(request, {project, isGlibc}) {
  checkMachine({platform: process.platform, arch: process.arch, isGlibc}, request);
  const given = request.tensorflow === undefined ? undefined :
    givenTensorFlow(resolve(project, request.tensorflow), request.gpu);
  const name = packageName(request.gpu);
  const report = new Report(4);

  report.start(`${name}, without its install script`);
  const {dir, version, manifest} = await ensurePackage(project, request, report);
  for (const folder of [cacheFolder(), dir]) {
    removeLeftovers(folder).forEach(left => report.detail(`removed what an interrupted run had left: ${left}`));
  }
  const changed = replaceOldUtil(dir);
  if (changed.length > 0) {
    report.detail(`changed for Node 23 and newer, which lack util.isNullOrUndefined: ${changed.join(', ')}`);
  }

  const inPackage = (/** @type {string} */ file) => isAbsolute(file) ? file : join(dir, file);
  const state = readState(dir);
  const wrong = problems(state, {tfjsNode: version, libDir: given?.libDir, download: request.download},
      file => sizeOf(inPackage(file)));
  const loaded = wrong.length === 0 ? await load(dir) : undefined;
  if (state && loaded?.ok) {
    report.line(`All is there: ${name} ${version} with ${state.tensorflow}${loaded.onGpu ? ', on the GPU' : ''}.`);
    return;
  }
  if (state) {
    [...wrong, ...(loaded ? ['it does not load'] : [])].forEach(problem => report.detail(`set up again: ${problem}`));
  }

  const compiler = await findCompiler(); // before a long download
  report.start('TensorFlow');
  const source = await findSource(request, given, report);
  removeState(dir);
  if ('found' in source && !source.found.libDir.startsWith(dir)) {
    rmSync(join(dir, OWN_LIBRARIES), {recursive: true, force: true}); // those of an earlier run, not used any more
  }
  const tensorflow = 'found' in source ? source.found : placeLibraries(source, dir, report);

  report.start(`The addon, from the package's own source, with ${compiler.join(' ')}`);
  const addon = addonPlace(manifest, Number(process.versions.napi));
  const target = join(dir, addon.path);
  const work = join(dir, 'build');
  const objects = partialPath(work);
  try {
    await compileAddon({
      compiler,
      packageDir: dir,
      nodeApi: addon.nodeApi,
      nodeHeaders: await findNodeHeaders(join(objects, 'headers'), report),
      tensorflow,
      rpath: 'found' in source ? tensorflow.libDir : `$ORIGIN/${relative(dirname(target), tensorflow.libDir)}`,
      objects,
      output: join(objects, 'addon.node'),
    }, report);
    mkdirSync(dirname(target), {recursive: true});
    rmSync(target, {force: true}); // a process that has the old one loaded keeps it
    renameSync(join(objects, 'addon.node'), target);
  } finally {
    discard(work);
  }

  report.start(`require('${name}')`);
  const {ok, output, onGpu} = await load(dir);
  if (!ok) {
    throw toolError(`${name} was built but does not load`, output);
  }
  const libraries = tensorflow.libraries.map(library => join(tensorflow.libDir, library));
  const files = 'found' in source ? libraries : source.files.map(file => join(OWN_LIBRARIES, file));
  writeState(dir, {
    tfjsNode: version,
    tensorflow: source.words,
    libDir: 'found' in source ? tensorflow.libDir : null,
    isDownload: !('found' in source),
    files: sizes([addon.path, ...files], inPackage),
  });
  const warning = twoCopies(project, dir);
  if (warning) {
    report.detail(`careful: ${warning}`);
  }
  if (request.gpu && !onGpu) {
    report.detail('careful: it loads, but on the CPU: TensorFlow sees no NVIDIA GPU here, or its driver is too old');
  }
  report.line(`Done: ${name} ${version} with ${source.words} works${onGpu ? ', on the GPU' : ''}.`);
  if (existsSync(join(project, 'package-lock.json'))) {
    report.line('Where the project is installed anew: npm ci --ignore-scripts, then this command again.');
  }
}
