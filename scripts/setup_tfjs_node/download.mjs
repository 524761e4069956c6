// @ts-check
// Gets TensorFlow's libraries and headers with pip, into a cache folder that all projects of the user share. Nothing is
// installed into Python: the wheels are unpacked, as far as they are needed, and thrown away.
import {mkdirSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {homedir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {checkedContents, writeContents} from './contents.mjs';
import {requireSpace} from './disk.mjs';
import {REMEDIES, SetupError, toolError} from './errors.mjs';
import {discard, finish, partialPath} from './half_done.mjs';
import {megabytes} from './report.mjs';
import {runTool} from './run_tool.mjs';

const UNPACK = fileURLToPath(new URL('unpack_wheels.py', import.meta.url));

export function cacheFolder(/** @type {NodeJS.ProcessEnv} */ env = process.env) {
  // An XDG path that is not absolute is to be ignored (XDG Base Directory Specification).
  const base = env.XDG_CACHE_HOME?.startsWith('/') ? env.XDG_CACHE_HOME : join(homedir(), '.cache');
  return join(base, 'tfjs-flash-attention');
}

/**
 * @typedef {{python: string, folder: string}} Pip folder: the one that it works in
 * @param {Pip} pip
 * @param {string[]} args what to download
 */
async function pipDownload({python, folder}, args) {
  // pip's own cache would only take room: the folder in ours is all that is wanted.
  const download = ['-m', 'pip', 'download', '--disable-pip-version-check', '--no-input', '--no-cache-dir',
    '--only-binary=:all:', '--dest', join(folder, 'wheels'), ...args];
  const options = {show: true, env: {TMPDIR: join(folder, 'tmp')}}; // the system's own may be small
  let outcome = await runTool(python, download, options);
  if (!outcome.ok && /No matching distribution|Could not find a version/.test(outcome.output)) {
    // This Python may be too new or too old for TensorFlow's wheels. The libraries in them are the same for all.
    outcome = await runTool(python, [...download, '--python-version', '3.12'], options);
  }
  if (!outcome.ok) {
    throw toolError('pip could not download TensorFlow', outcome.output, {isShown: true});
  }
}

/** The requirements of the extra and-cuda, without those of Python. */
async function cudaRequirements(/** @type {Pip} */ {python, folder}) {
  const [wheel] = readdirSync(join(folder, 'wheels'));
  const {ok, stdout, output} = await runTool(python, [UNPACK, 'requirements', join(folder, 'wheels', wheel)]);
  if (!ok || stdout.trim() === '') {
    throw toolError('TensorFlow\'s wheel does not say which CUDA libraries it wants', output);
  }
  return stdout.trim().split('\n');
}

async function unpack(/** @type {Pip} */ {python, folder}, /** @type {import('./report.mjs').Report} */ report) {
  const onLine = (/** @type {string} */ line) => {
    const [done, total] = line.split(' ').map(Number);
    report.progress(`unpacking ${megabytes(total)}:`, done / total);
  };
  const {ok, output} = await runTool(python, [UNPACK, 'unpack', join(folder, 'wheels'), folder], {onLine});
  if (!ok) {
    throw toolError('TensorFlow\'s wheel could not be unpacked', output.replace(/^\d+ \d+\n/gm, ''));
  }
}

/**
 * @param {import('./tensorflow.mjs').PipPackage} wanted
 * @param {string | undefined} python
 * @param {import('./report.mjs').Report} report
 * @returns {Promise<{folder: string, files: string[]}>} the complete folder in the cache, and what is in it
 */
export async function downloadTensorFlow(wanted, python, report) {
  const folder = join(cacheFolder(), wanted.name);
  const cached = checkedContents(folder);
  if (cached) {
    report.detail(`is in ${folder} from an earlier run`);
    return {folder, files: Object.keys(cached)};
  }
  if (!python || !(await runTool(python, ['-m', 'pip', '--version'])).ok) {
    throw new SetupError(`there is no ${python ? 'pip for the Python' : 'Python 3'} here`, REMEDIES.python);
  }
  requireSpace(cacheFolder(), wanted.download + wanted.unpacked);
  report.detail(`pip downloads ${wanted.requirement}${wanted.cuda ? ' and the CUDA libraries' : ''} ` +
      `(about ${megabytes(wanted.download)})`);
  const pip = {python, folder: partialPath(folder)};
  mkdirSync(join(pip.folder, 'tmp'), {recursive: true});
  try {
    await pipDownload(pip, ['--no-deps', wanted.requirement]);
    if (wanted.cuda) {
      const list = join(pip.folder, 'requirements.txt');
      writeFileSync(list, (await cudaRequirements(pip)).join('\n'));
      await pipDownload(pip, ['--requirement', list]);
    }
    await unpack(pip, report);
    for (const name of ['wheels', 'tmp', 'requirements.txt']) {
      rmSync(join(pip.folder, name), {recursive: true, force: true});
    }
    const files = Object.keys(writeContents(pip.folder));
    finish(folder);
    return {folder, files};
  } finally {
    discard(folder);
  }
}
