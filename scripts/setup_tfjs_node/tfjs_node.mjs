// @ts-check
// The npm package @tensorflow/tfjs-node (or -gpu) in the user's project: which version, where its addon belongs, and
// what in it newer versions of Node refuse.
import {existsSync, readdirSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';

import {SetupError, toolError} from './errors.mjs';
import {runTool} from './run_tool.mjs';

const NEWEST_KNOWN = '4.22.0';

export const packageName = (/** @type {boolean} */ gpu) => `@tensorflow/tfjs-node${gpu ? '-gpu' : ''}`;

/** What npm should install beside the tfjs that the project has. */
export function versionRange(/** @type {string | undefined} */ tfjsVersion) {
  const [, major, minor] = /^(\d+)\.(\d+)\./.exec(tfjsVersion ?? NEWEST_KNOWN) ?? [];
  return `~${major}.${minor}.0`;
}

/**
 * @typedef {{dir: string, version: string, manifest: any}} Package manifest: its package.json
 * @param {string} project @param {string} name
 * @returns {Package | undefined} the package as the project would load it
 */
export function findPackage(project, name) {
  try {
    const file = createRequire(join(project, 'package.json')).resolve(`${name}/package.json`);
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    return {dir: dirname(file), version: manifest.version, manifest};
  } catch {
    return undefined;
  }
}

/** The package managers whose projects npm should not touch. */
const OTHERS = {'pnpm-lock.yaml': 'pnpm', 'yarn.lock': 'yarn', 'bun.lock': 'bun', 'bun.lockb': 'bun'};

export function otherManager(/** @type {string} */ project) {
  return Object.entries(OTHERS).find(([file]) => existsSync(join(project, file)))?.[1];
}

/**
 * @param {string} project @param {import('./arguments.mjs').Request} request
 * @param {import('./report.mjs').Report} report
 * @returns {Promise<Package>}
 */
export async function ensurePackage(project, {gpu, noSave}, report) {
  const name = packageName(gpu);
  const present = findPackage(project, name);
  if (present) {
    report.detail(`${present.version} is in ${present.dir}`);
    return present;
  }
  const tfjs = findPackage(project, '@tensorflow/tfjs') ?? findPackage(project, '@tensorflow/tfjs-core');
  const wanted = `${name}@${versionRange(tfjs?.version)}`;
  const manager = otherManager(project);
  if (manager) {
    throw new SetupError(`${name} is not installed, and this is a project of ${manager}`,
        `Install it without its install script, then run this again: ${manager} add --ignore-scripts ${wanted}`);
  }
  const options = ['--ignore-scripts', ...noSave ? ['--no-save'] : []];
  report.detail(`npm install ${options.join(' ')} ${wanted}`);
  const {ok, output} = await runTool('npm', ['install', ...options, '--no-audit', '--no-fund', wanted],
      {cwd: project, show: true});
  const installed = findPackage(project, name);
  if (!ok || !installed) {
    const otherwise = 'npm must be on the path, and able to install it.';
    throw toolError(`npm could not install ${wanted}`, output, {otherwise, isShown: true});
  }
  return installed;
}

/**
 * Where the package's index looks for its addon (through node-pre-gyp): in the folder of the highest version of
 * Node-API that both the package and Node know.
 * @param {any} manifest @param {number} nodeApi of this Node
 */
export function addonPlace(manifest, nodeApi) {
  const {module_name: name, module_path: path, napi_versions: versions} = manifest.binary;
  const version = Math.max(...versions.filter((/** @type {number} */ known) => known <= nodeApi));
  return {nodeApi: version, path: join(path.replace('{napi_build_version}', String(version)), `${name}.node`)};
}

/**
 * util.isNullOrUndefined is gone from Node 23 on, and util.isArray is on its way out. Compiled TypeScript calls them as
 * `(0, util_1.isNullOrUndefined)(x)`.
 * @param {string} source @returns {string}
 */
export function withoutOldUtil(source) {
  return source
      .replace(/(?:\(0, util_\d+\.isNullOrUndefined\)|\butil_\d+\.isNullOrUndefined)\(([^()]*)\)/g, '($1 == null)')
      .replace(/(?:\(0, util_\d+\.isArray\)|\butil_\d+\.isArray)\(/g, 'Array.isArray(');
}

/** Applies that to the package. @returns {string[]} the files that it changed, relative to the package */
export function replaceOldUtil(/** @type {string} */ dir) {
  const names = readdirSync(join(dir, 'dist'), {recursive: true, encoding: 'utf8'});
  const sources = names.filter(name => name.endsWith('.js') && !name.endsWith('_test.js'));
  return sources.map(name => join('dist', name)).filter(name => {
    const path = join(dir, name);
    const source = readFileSync(path, 'utf8');
    const replaced = withoutOldUtil(source);
    if (replaced !== source) {
      // A new file: pnpm shares the old one with other projects.
      writeFileSync(`${path}.new`, replaced);
      renameSync(`${path}.new`, path);
    }
    return replaced !== source;
  });
}

/**
 * Two copies of tfjs-core do not see each other's backends.
 * @returns {string | undefined} a warning
 */
export function twoCopies(/** @type {string} */ project, /** @type {string} */ tfjsNodeDir) {
  const core = '@tensorflow/tfjs-core';
  const [own, other] = [findPackage(project, core), findPackage(tfjsNodeDir, core)];
  return own && other && own.dir !== other.dir ?
    `the project uses tfjs-core ${own.version} and tfjs-node uses ${other.version}: the backend 'tensorflow' will be ` +
    'seen only through tfjs-node. Give both the same version.' : undefined;
}
