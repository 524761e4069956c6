// @ts-check
// Where nvcc is: the environment variable NVCC, the PATH, /usr/local/cuda, or pip's wheels in the user's cache.
import {existsSync, mkdirSync} from 'node:fs';
import {delimiter, join} from 'node:path';

import {requireSpace} from '../setup_tfjs_node/disk.mjs';
import {cacheFolder} from '../setup_tfjs_node/download.mjs';
import {SetupError, toolError} from '../setup_tfjs_node/errors.mjs';
import {discard, finish, partialPath} from '../setup_tfjs_node/half_done.mjs';
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {findPython} from '../setup_tfjs_node/tensorflow.mjs';
import {toolkitVersion} from './plan.mjs';

/** The first that knows --compress-mode=size and all architectures. */
const OLDEST = 13000;

/** Of one release: nvcc finds the others beside it. The runtime's wheel holds the headers. */
const WHEELS = ['nvidia-cuda-nvcc==13.0.88', 'nvidia-nvvm==13.0.88', 'nvidia-cuda-crt==13.0.88',
  'nvidia-cuda-runtime==13.0.96', 'nvidia-cuda-cccl==13.0.85'];

export const REMEDY = 'Install the CUDA toolkit 13.0 or newer, or name its nvcc in the environment variable NVCC. ' +
    'npm run build:cuda -- --pip fetches it with pip.';

/** @typedef {{path: string, version: number}} Nvcc */

/** @param {string} path @returns {Promise<Nvcc | undefined>} */
async function tryNvcc(path) {
  const {ok, stdout} = await runTool(path, ['--version']);
  const version = ok ? toolkitVersion(stdout) : undefined;
  return version === undefined ? undefined : {path, version};
}

const pipFolder = () => join(cacheFolder(), `nvcc-${WHEELS[0].split('==')[1]}`);
const inWheels = (/** @type {string} */ folder) => join(folder, 'nvidia/cu13/bin/nvcc');

/** One that is there. @returns {Promise<Nvcc | undefined>} */
export async function findNvcc(env = process.env) {
  if (env.NVCC) {
    const named = await tryNvcc(env.NVCC);
    if (!named) {
      throw new SetupError(`the nvcc of the environment variable NVCC (${env.NVCC}) does not run`, REMEDY);
    }
    return named;
  }
  const onPath = (env.PATH ?? '').split(delimiter).filter(Boolean).map(folder => join(folder, 'nvcc'));
  for (const path of [...onPath, '/usr/local/cuda/bin/nvcc', inWheels(pipFolder())]) {
    const found = existsSync(path) ? await tryNvcc(path) : undefined;
    if (found && found.version >= OLDEST) {
      return found;
    }
  }
  return undefined;
}

/** From pip, into a folder of its own: nothing is installed into Python. @param {(line: string) => void} log */
export async function fetchNvcc(log) {
  const folder = pipFolder();
  const python = await findPython();
  if (!python || !(await runTool(python, ['-m', 'pip', '--version'])).ok) {
    throw new SetupError(`nvcc is wanted, and there is no ${python ? 'pip for the Python' : 'Python 3'} here`, REMEDY);
  }
  requireSpace(folder, 1e9);
  log(`pip fetches nvcc (0.1 GB, 0.4 GB unpacked) into ${folder}`);
  const partial = partialPath(folder);
  mkdirSync(partial, {recursive: true});
  try {
    const {ok, output} = await runTool(python, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input',
      '--no-cache-dir', '--no-deps', '--only-binary=:all:', '--target', partial, ...WHEELS]);
    if (!ok || !existsSync(inWheels(partial))) {
      throw toolError('pip could not fetch nvcc', output, {otherwise: REMEDY});
    }
    finish(folder);
  } finally {
    discard(folder);
  }
  const found = await tryNvcc(inWheels(folder));
  if (!found) {
    throw new SetupError('the nvcc of pip does not run', REMEDY);
  }
  return found;
}
