// @ts-check
// The command line. Paths are left as they were written.
import {SetupError} from './errors.mjs';

export const USAGE = `tfjs-flash-attention <command>

  setup-tfjs-node [--gpu] [--tensorflow DIR | --download] [--no-save]
      Makes require('@tensorflow/tfjs-node') work in the project of the current folder: takes the npm package without
      its install script, and builds its addon against a TensorFlow of pip. Linux on x64 or arm64.

      --gpu              @tensorflow/tfjs-node-gpu, with pip's TensorFlow for CUDA (x64)
      --tensorflow DIR   use the TensorFlow in DIR: a virtual environment, a folder site-packages or tensorflow in it,
                         or an unpacked libtensorflow (lib, include)
      --download         get TensorFlow with pip, even where Python has one installed
      --no-save          leave package.json and package-lock.json as they are

  doctor [--json]
      Says what is here (CPU, GPU, the native addon, TensorFlow, WebGPU), which kernel runs on each backend of tfjs, and
      what to do about what is missing.

  help
      This text.
`;

/** What was asked for makes no sense: exit code 2. */
export class UsageError extends Error {}

/**
 * @typedef {{gpu: boolean, download: boolean, noSave?: boolean, tensorflow?: string}} Request what setup-tfjs-node is
 *     asked for
 * @param {string[]} args what stands after `tfjs-flash-attention`
 * @returns {{command: 'help'} | {command: 'doctor', json: boolean} | {command: 'setup-tfjs-node', request: Request}}
 */
export function parseArguments(args) {
  const [command, ...rest] = args;
  if (command === undefined || ['help', '--help', '-h'].includes(command)) {
    return {command: 'help'};
  }
  if (command === 'doctor') {
    const unknown = rest.find(option => option !== '--json');
    if (unknown !== undefined && unknown !== '--help' && unknown !== '-h') {
      throw new UsageError(`doctor has no option ${unknown}, only --json`);
    }
    return unknown === undefined ? {command, json: rest.length > 0} : {command: 'help'};
  }
  if (command !== 'setup-tfjs-node') {
    throw new UsageError(`there is no command ${command}, only setup-tfjs-node, doctor and help`);
  }
  /** @type {Request} */
  const request = {gpu: false, download: false};
  while (rest.length > 0) {
    const option = /** @type {string} */ (rest.shift());
    const [name, value] = option.startsWith('--tensorflow=') ? ['--tensorflow', option.slice(13)] : [option];
    if (name === '--help' || name === '-h') {
      return {command: 'help'};
    } else if (name === '--gpu') {
      request.gpu = true;
    } else if (name === '--download') {
      request.download = true;
    } else if (name === '--no-save') {
      request.noSave = true;
    } else if (name === '--tensorflow') {
      const folder = value ?? rest.shift();
      if (!folder || folder.startsWith('--')) {
        throw new UsageError('--tensorflow needs a folder: --tensorflow DIR');
      }
      request.tensorflow = folder;
    } else {
      throw new UsageError(`setup-tfjs-node has no option ${option}, only --gpu, --tensorflow DIR, --download ` +
          'and --no-save');
    }
  }
  if (request.download && request.tensorflow !== undefined) {
    throw new UsageError('--download and --tensorflow exclude each other');
  }
  return {command, request};
}

/**
 * @param {{platform: string, arch: string, isGlibc: boolean}} machine
 * @param {Request} request
 * @throws {SetupError} where this cannot work
 */
export function checkMachine({platform, arch, isGlibc}, {gpu, tensorflow}) {
  if (platform !== 'linux' || !['x64', 'arm64'].includes(arch)) {
    throw new SetupError(`setup-tfjs-node works on Linux on x64 and arm64, and this is ${platform} on ${arch}`,
        'On Windows use WSL 2. tfjs-node\'s own install script knows other systems: npm install @tensorflow/tfjs-node');
  }
  if (!isGlibc && tensorflow === undefined) {
    throw new SetupError('TensorFlow\'s wheels want glibc, and this system has another C library (musl?)',
        'Use a distribution with glibc, such as Debian, or give a TensorFlow built for this one: --tensorflow DIR');
  }
  if (gpu && arch !== 'x64' && tensorflow === undefined) {
    throw new SetupError(`pip has no TensorFlow for CUDA on ${arch}`,
        'Leave --gpu out, or give a TensorFlow built for CUDA: --tensorflow DIR');
  }
}
