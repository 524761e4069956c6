import {checkOptionNames, invalid} from '../../op/options.js';

import {enable, WEBGPU_OPTIONS} from './enable_webgpu.js';
import type {WebGPUOptions} from './enable_webgpu.js';
import {fileStorage} from './node_storage.js';
import type {WebGPUReport} from './report.js';
import {setWinnerStorage} from './winners.js';

setWinnerStorage(fileStorage);

/** Options of `enableWebGPU` in Node. */
export interface NodeWebGPUOptions extends WebGPUOptions {
  /**
   * Dawn's switches, as `create` of the npm package `webgpu` takes them. Default: what shader-f16 on NVIDIA and
   * subgroup matrices need. They hold for the whole process: another call with others is an error.
   */
  dawnFlags?: readonly string[];
}

const DAWN_FLAGS = ['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'];

/** What the npm package `webgpu` exports. */
interface Dawn {
  create(flags: string[]): GPU;
  globals: Record<string, unknown>;
}

async function importDawn(): Promise<Dawn> {
  try {
    return await import('webgpu') as unknown as Dawn;
  } catch (error) {
    throw new Error(
        'flashAttention: WebGPU in Node needs the package webgpu, which does not load ' +
        `(${(error as Error).message.split('\n')[0]}); run: npm install webgpu`);
  }
}

/** Puts WebGPU's globals (GPUBufferUsage, navigator.gpu, …) where tfjs looks for them. */
async function startDawn(flags: readonly string[]): Promise<void> {
  const dawn = await importDawn();
  const gpu = dawn.create([...flags]);
  Object.assign(globalThis, dawn.globals);
  if (!globalThis.navigator) {
    // Node 20 has no navigator. tfjs reads the user agent of one that is there.
    Object.defineProperty(
        globalThis, 'navigator', {value: {userAgent: `Node.js/${process.versions.node}`}, configurable: true});
  }
  Object.defineProperty(globalThis.navigator, 'gpu', {value: gpu, configurable: true});
}

/** Dawn as it was started here, and how. */
let started: {readonly flags: readonly string[], readonly done: Promise<void>}|undefined;

function bringUp(dawnFlags: readonly string[]|undefined): Promise<void> {
  if (!started && globalThis.navigator?.gpu) {
    return Promise.resolve(); // somebody else's
  }
  if (started && dawnFlags && dawnFlags.join(' ') !== started.flags.join(' ')) {
    throw invalid(`the flags that Dawn was started with, ${started.flags.join(' ')},`, 'dawnFlags', dawnFlags);
  }
  if (!started) {
    const flags = dawnFlags ?? DAWN_FLAGS;
    started = {flags, done: startDawn(flags)};
    started.done.catch(() => {
      started = undefined;
    });
  }
  return started.done;
}

/**
 * `enableWebGPU` in Node, through the optional peers `webgpu` (Dawn) and `@tensorflow/tfjs-backend-webgpu`: brings Dawn
 * up, then does what it does in a browser.
 *
 * ```js
 * import * as tf from '@tensorflow/tfjs';
 * import {enableWebGPU, flashAttention} from 'tfjs-flash-attention/node';
 * console.log((await enableWebGPU()).adapter);   // rejects with the reason where there is no adapter
 * ```
 * @throws as in a browser.
 */
export async function enableWebGPU(options: NodeWebGPUOptions = {}): Promise<WebGPUReport> {
  checkOptionNames(options, [...WEBGPU_OPTIONS, 'dawnFlags']);
  const {dawnFlags, ...rest} = options;
  if (dawnFlags !== undefined &&
      !(Array.isArray(dawnFlags) && dawnFlags.every(flag => typeof flag === 'string'))) {
    throw invalid('an array of strings', 'dawnFlags', dawnFlags);
  }
  await bringUp(dawnFlags);
  return enable(rest);
}
