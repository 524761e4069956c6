// @ts-check
// zig as the compiler of the prebuilt addon: it brings the C library's symbols of any version and a static C++ library,
// so that the result does not depend on the machine that made it. From pip, into the user's cache.
import {existsSync, mkdirSync} from 'node:fs';
import {join} from 'node:path';

import {requireSpace} from '../setup_tfjs_node/disk.mjs';
import {cacheFolder} from '../setup_tfjs_node/download.mjs';
import {SetupError, toolError} from '../setup_tfjs_node/errors.mjs';
import {discard, finish, partialPath} from '../setup_tfjs_node/half_done.mjs';
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {findPython} from '../setup_tfjs_node/tensorflow.mjs';

export const ZIG_VERSION = '0.17.1';

const REMEDY = 'Install Python 3.8 or newer with pip (Debian, Ubuntu: sudo apt-get install python3 python3-pip), or ' +
    `name zig ${ZIG_VERSION} in the environment variable ZIG. Without the prebuilt addon the package would not work ` +
    'where there is no compiler.';

/**
 * @param {(line: string) => void} log
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<{command: string[], env: NodeJS.ProcessEnv}>} the C++ compiler, without its target
 */
export async function findZig(log, env = process.env) {
  const cache = join(cacheFolder(env), 'zig-cache');
  const zigEnv = {ZIG_GLOBAL_CACHE_DIR: cache, ZIG_LOCAL_CACHE_DIR: cache};
  if (env.ZIG) {
    if (!(await runTool(env.ZIG, ['version'])).ok) {
      throw new SetupError(`the zig of the environment variable ZIG (${env.ZIG}) does not run`, REMEDY);
    }
    return {command: [env.ZIG, 'c++'], env: zigEnv};
  }
  const folder = join(cacheFolder(env), `ziglang-${ZIG_VERSION}`);
  const zig = join(folder, 'ziglang/zig');
  if (!existsSync(zig)) {
    await install(folder, log);
  }
  return {command: [zig, 'c++'], env: zigEnv};
}

/** Into a folder of its own: nothing is installed into Python. */
async function install(/** @type {string} */ folder, /** @type {(line: string) => void} */ log) {
  const python = await findPython();
  if (!python || !(await runTool(python, ['-m', 'pip', '--version'])).ok) {
    throw new SetupError(`zig is wanted, and there is no ${python ? 'pip for the Python' : 'Python 3'} here`, REMEDY);
  }
  requireSpace(folder, 0.6e9);
  log(`pip fetches zig ${ZIG_VERSION} (0.1 GB, 0.4 GB unpacked) into ${folder}`);
  const partial = partialPath(folder);
  mkdirSync(partial, {recursive: true});
  try {
    const {ok, output} = await runTool(python, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input',
      '--no-cache-dir', '--no-deps', '--only-binary=:all:', '--target', partial, `ziglang==${ZIG_VERSION}`]);
    if (!ok || !existsSync(join(partial, 'ziglang/zig'))) {
      throw toolError(`pip could not fetch ziglang ${ZIG_VERSION}`, output, {otherwise: REMEDY});
    }
    finish(folder);
  } finally {
    discard(folder);
  }
}
