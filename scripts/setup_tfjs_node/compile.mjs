// @ts-check
// Compiles the addon's own source. By the compiler itself and not by node-gyp: it is two files and needs only the
// header of Node-API, which is the same for every version of Node, where node-gyp wants make, a Python of its own age
// and all of Node's headers.
import {existsSync, mkdirSync, readFileSync, realpathSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';

import {readBindingGyp} from './binding_gyp.mjs';
import {REMEDIES, SetupError, toolError} from './errors.mjs';
import {runTool} from './run_tool.mjs';

/** The compiler and the options that CXX may hold. @returns {Promise<string[]>} */
export async function findCompiler(/** @type {NodeJS.ProcessEnv} */ env = process.env) {
  const chosen = env.CXX?.trim();
  for (const command of chosen ? [chosen] : ['g++', 'c++', 'clang++']) {
    const words = command.split(/\s+/);
    if ((await runTool(words[0], [...words.slice(1), '--version'])).ok) {
      return words;
    }
  }
  throw new SetupError(chosen ? `the C++ compiler of CXX (${chosen}) does not run` : 'there is no C++ compiler here',
      REMEDIES.compiler);
}

/** Folders that may hold node_api.h, best first. @param {string} node its real path @param {NodeJS.ProcessEnv} env */
export function headerFolders(node, env) {
  const prefixes = [dirname(dirname(node)), env.npm_config_nodedir, '/usr/local', '/usr'];
  return prefixes.flatMap(prefix => prefix ? [join(prefix, 'include/node')] : []);
}

/**
 * @param {string} scratch a folder for headers that must be fetched
 * @param {import('./report.mjs').Report} report
 * @returns {Promise<string>} the folder of node_api.h
 */
export async function findNodeHeaders(scratch, report) {
  const present = headerFolders(realpathSync(process.execPath), process.env)
      .find(folder => existsSync(join(folder, 'node_api.h')));
  if (present) {
    return present;
  }
  report.detail('no headers beside Node: npm fetches node-api-headers');
  mkdirSync(scratch, {recursive: true});
  const {ok, output} = await runTool('npm',
      ['install', '--prefix', scratch, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', 'node-api-headers'],
      {cwd: scratch});
  const fetched = join(scratch, 'node_modules/node-api-headers/include');
  if (!ok || !existsSync(join(fetched, 'node_api.h'))) {
    throw toolError('Node\'s headers are not on this machine, and npm could not fetch them', output,
        {otherwise: 'Install them (Debian, Ubuntu: sudo apt-get install libnode-dev; or take Node\'s own archive).'});
  }
  return fetched;
}

/**
 * @typedef {object} Build
 * @property {string[]} compiler
 * @property {string} packageDir of tfjs-node
 * @property {number} nodeApi
 * @property {string} nodeHeaders
 * @property {{libDir: string, libraries: string[], includeDir: string}} tensorflow
 * @property {string} rpath where the addon looks for the libraries when it is loaded
 * @property {string} objects a folder for what comes between
 * @property {string} output
 */

/** One command per source, and one that links. @param {Build} build @param {string} gyp the text of binding.gyp */
export function buildCommands(build, gyp) {
  const {compiler, packageDir, tensorflow} = build;
  const {sources, includeDirs, defines} = readBindingGyp(gyp, {
    module_root_dir: packageDir,
    napi_build_version: String(build.nodeApi),
    tensorflow_include_dir: tensorflow.includeDir,
  });
  const objects = sources.map(source => join(build.objects, `${basename(source)}.o`));
  const includes = [...includeDirs, build.nodeHeaders].flatMap(folder => ['-I', folder]);
  const compile = sources.map((source, i) => ({
    title: source,
    args: [...compiler.slice(1), '-std=c++17', '-O2', '-fPIC', '-fvisibility=hidden',
      ...defines.map(define => `-D${define}`), ...includes, '-c', source, '-o', objects[i]],
  }));
  const libraries = tensorflow.libraries.map(name => join(tensorflow.libDir, name));
  const link = {
    title: basename(build.output),
    args: [...compiler.slice(1), '-shared', ...objects, ...libraries, `-Wl,-rpath,${build.rpath}`, '-o', build.output],
  };
  return [...compile, link];
}

/** @param {Build} build @param {import('./report.mjs').Report} report */
export async function compileAddon(build, report) {
  mkdirSync(build.objects, {recursive: true});
  mkdirSync(dirname(build.output), {recursive: true});
  for (const {title, args} of buildCommands(build, readFileSync(join(build.packageDir, 'binding.gyp'), 'utf8'))) {
    report.detail(title);
    const {ok, output} = await runTool(build.compiler[0], args, {cwd: build.packageDir});
    if (!ok) {
      throw toolError(`${build.compiler[0]} could not make ${title}`, output,
          {otherwise: 'If the compiler is old, try a newer one through the environment variable CXX.'});
    }
  }
}
