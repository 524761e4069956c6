// @ts-check
// The TensorFlow to build against: which one pip should get, what is in a folder, and which one Python has.
import {existsSync, readdirSync, readFileSync, realpathSync} from 'node:fs';
import {dirname, join} from 'node:path';

import {SetupError} from './errors.mjs';
import {runTool} from './run_tool.mjs';

/** The version that the tests run with. Its C API is stable, so another one given with --tensorflow will do as well. */
export const TENSORFLOW_VERSION = '2.21.0';

/**
 * What pip should download. Bytes are of TensorFlow 2.21.0 with the CUDA libraries of its time, rounded up.
 * @typedef {{name: string, requirement: string, cuda: boolean, download: number, unpacked: number}} PipPackage
 * @param {string} arch
 * @param {boolean} gpu
 * @returns {PipPackage}
 */
export function pipPackage(arch, gpu) {
  // tensorflow-cpu is for x64 only. The package tensorflow is built for CUDA on x64, and for the CPU on arm64.
  const name = gpu || arch === 'arm64' ? 'tensorflow' : 'tensorflow-cpu';
  return {
    name: `${name}-${TENSORFLOW_VERSION}-${arch}${gpu ? '-cuda' : ''}`,
    requirement: `${name}==${TENSORFLOW_VERSION}`,
    cuda: gpu,
    download: gpu ? 3.4e9 : 0.29e9,
    unpacked: gpu ? 5.8e9 : 0.9e9,
  };
}

const CORE = ['libtensorflow_cc.so.2', 'libtensorflow.so.2']; // of pip; of the C library's own archive
const FRAMEWORK = 'libtensorflow_framework.so.2';

/**
 * @typedef {object} TensorFlow
 * @property {string} libDir where the libraries are
 * @property {string[]} libraries to link against
 * @property {string} includeDir
 * @property {string | undefined} version
 * @property {boolean | undefined} isCuda undefined: not known
 * @property {boolean} hasCudaLibraries whether pip's CUDA libraries lie beside it
 */

/** Where a folder that somebody calls "my TensorFlow" may keep the libraries. */
function libraryFolders(/** @type {string} */ dir) {
  const python = ['lib', 'lib64'].flatMap(lib => {
    const versions = existsSync(join(dir, lib)) ? readdirSync(join(dir, lib)) : [];
    return versions.filter(name => name.startsWith('python3'))
        .map(name => join(lib, name, 'site-packages/tensorflow'));
  });
  return ['', 'lib', 'tensorflow', ...python].map(folder => join(dir, folder));
}

/** pip writes the version into the name of a folder beside the package. */
function pipVersion(/** @type {string} */ libDir) {
  const pattern = /^tensorflow(?:_\w+)?-(\d[\w.]*)\.dist-info$/;
  return readdirSync(dirname(libDir)).map(name => pattern.exec(name)?.[1]).find(Boolean);
}

/** @param {string} dir @returns {TensorFlow | undefined} undefined: there is none in it */
export function inspectTensorFlow(dir) {
  for (const folder of libraryFolders(dir)) {
    const core = CORE.find(name => existsSync(join(folder, name)));
    const include = [join(folder, 'include'), join(folder, '../include')]
        .find(candidate => existsSync(join(candidate, 'tensorflow/c/eager/c_api.h')));
    if (core && include && existsSync(join(folder, FRAMEWORK))) {
      // The loader finds the CUDA libraries relative to the real folder.
      const libDir = realpathSync(folder);
      const info = join(libDir, 'python/platform/build_info.py');
      return {
        libDir,
        libraries: [core, FRAMEWORK],
        includeDir: realpathSync(include),
        version: pipVersion(libDir),
        isCuda: existsSync(info) ? /'is_cuda_build', True/.test(readFileSync(info, 'utf8')) : undefined,
        hasCudaLibraries: existsSync(join(libDir, '../nvidia/cudnn/lib')),
      };
    }
  }
  return undefined;
}

/** @param {string} dir as given with --tensorflow @param {boolean} gpu @returns {TensorFlow} */
export function givenTensorFlow(dir, gpu) {
  const found = inspectTensorFlow(dir);
  if (!found) {
    throw new SetupError(`there is no TensorFlow in ${dir}`,
        `It needs ${CORE.join(' or ')}, ${FRAMEWORK} and include/tensorflow/c/eager/c_api.h, as pip and the archives ` +
        'of libtensorflow have them. Leave --tensorflow out to get one with pip.');
  }
  if (gpu && found.isCuda === false) {
    throw new SetupError(`the TensorFlow in ${dir} was built without CUDA`,
        'Leave --gpu out, or give one that was built with it, or leave --tensorflow out to get one with pip.');
  }
  return found;
}

/** Whether a TensorFlow that was found, not given, will do. */
export function fits(/** @type {TensorFlow} */ {isCuda, hasCudaLibraries}, /** @type {boolean} */ gpu) {
  return !gpu || (isCuda === true && hasCudaLibraries);
}

/** The Python on the path. @returns {Promise<string | undefined>} */
export async function findPython() {
  for (const command of ['python3', 'python']) {
    if ((await runTool(command, ['-c', 'import sys; sys.exit(sys.version_info < (3, 8))'])).ok) {
      return command;
    }
  }
  return undefined;
}

/** The TensorFlow that Python would import, found without importing it. @returns {Promise<TensorFlow | undefined>} */
export async function installedTensorFlow(/** @type {string} */ python) {
  const code = 'import importlib.util as i; print(*i.find_spec("tensorflow").submodule_search_locations)';
  // Not in the user's folder: Python would take a folder "tensorflow" there for the package.
  const {ok, stdout} = await runTool(python, ['-c', code], {cwd: '/'});
  const folder = stdout.trim();
  return ok && folder ? inspectTensorFlow(folder) : undefined;
}
