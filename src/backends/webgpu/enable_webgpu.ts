import {engine, env, removeBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {checkOptionNames, invalid} from '../../op/options.js';

import {noteAdapter} from './capabilities.js';
import {isLost} from './device.js';
import {guardBackend} from './guarded_backend.js';
import {adapterName, makeReport} from './make_report.js';
import {checkReplaceable, isRegistered, replaceBackend, runningBackend, WEBGPU} from './replace_backend.js';
import type {WebGPUReport} from './report.js';

/** Options of {@link enableWebGPU}. */
export interface WebGPUOptions {
  /** Which adapter to ask for where there are several. Default `'high-performance'`. */
  powerPreference?: 'high-performance'|'low-power';
  /** WebGPU features without which nothing is registered and the call fails. Default none: what there is, is taken. */
  requiredFeatures?: readonly string[];
  /**
   * Take the place of a `webgpu` backend that is running and holds tensors: variables (weights of models, moments of
   * optimizers) are copied over; every other tensor of it is given up, and using one is an error (`tf.train.sgd` keeps
   * its rate in one: make it anew). Default false: the call fails. A backend without tensors, or whose device is lost,
   * is replaced in any case.
   */
  replace?: boolean;
  /** Dispatches that tfjs records before it submits (flag WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE). Default: tfjs' own. */
  submitBatchSize?: number;
}

export const WEBGPU_OPTIONS: readonly string[] = [
  'powerPreference', 'requiredFeatures', 'replace', 'submitBatchSize',
] satisfies Array<keyof WebGPUOptions>;

const NO_GPU_IN_NODE = 'in Node import enableWebGPU from tfjs-flash-attention/node';
const NO_GPU_IN_BROWSER =
    'this browser has no navigator.gpu (Chrome and Edge have it from version 113 on, on Linux behind ' +
    'chrome://flags/#enable-unsafe-webgpu, Safari from 26, Firefox from 141 on Windows)';
const NO_ADAPTER_IN_NODE =
    'no WebGPU adapter found; on Linux install the Vulkan loader (apt-get install libvulkan1) and the GPU\'s Vulkan ' +
    'driver';
const NO_ADAPTER_IN_BROWSER =
    'this browser knows WebGPU and found no GPU that it may use; check that hardware acceleration is on in its ' +
    'settings and that the GPU\'s driver is installed (chrome://gpu says more)';

const isNode = (): boolean => typeof process !== 'undefined' && process.versions?.node !== undefined;

async function findAdapter(powerPreference: GPUPowerPreference): Promise<GPUAdapter> {
  const gpu = globalThis.navigator?.gpu as GPU|undefined;
  if (!gpu) {
    const reason = isNode() ? NO_GPU_IN_NODE :
        globalThis.isSecureContext === false ?
                              'browsers offer it only to pages from https:// or from localhost' :
                              NO_GPU_IN_BROWSER;
    throw new Error(`flashAttention: WebGPU is missing: ${reason}`);
  }
  const adapter = await gpu.requestAdapter({powerPreference}).catch((error: Error) => {
    throw new Error(`flashAttention: WebGPU is missing: ${error.message}`);
  });
  if (!adapter) {
    throw new Error(`flashAttention: WebGPU is missing: ${isNode() ? NO_ADAPTER_IN_NODE : NO_ADAPTER_IN_BROWSER}`);
  }
  return adapter;
}

/** A device with every feature and limit that the adapter offers. */
export async function requestFullDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') {
      requiredLimits[name] = value;
    }
  }
  const requiredFeatures = [...adapter.features] as GPUFeatureName[];
  const device = await adapter.requestDevice({requiredFeatures, requiredLimits});
  noteAdapter(device, adapter.info);
  return device;
}

async function importWebGPUBackend(): Promise<typeof import('@tensorflow/tfjs-backend-webgpu')> {
  // An optional peer: in a try, so that bundlers let it be missing.
  try {
    return await import('@tensorflow/tfjs-backend-webgpu');
  } catch (error) {
    throw new Error(
        'flashAttention: enableWebGPU needs the package @tensorflow/tfjs-backend-webgpu, which does not load ' +
        `(${(error as Error).message.split('\n')[0]}); run: npm install @tensorflow/tfjs-backend-webgpu`);
  }
}

function checkOptions({requiredFeatures, submitBatchSize, replace, powerPreference}: WebGPUOptions) {
  if (powerPreference !== undefined && powerPreference !== 'high-performance' && powerPreference !== 'low-power') {
    throw invalid('\'high-performance\' or \'low-power\'', 'powerPreference', powerPreference);
  }
  if (requiredFeatures !== undefined &&
      !(Array.isArray(requiredFeatures) && requiredFeatures.every(name => typeof name === 'string'))) {
    throw invalid('an array of names of WebGPU features', 'requiredFeatures', requiredFeatures);
  }
  if (replace !== undefined && typeof replace !== 'boolean') {
    throw invalid('a boolean', 'replace', replace);
  }
  if (submitBatchSize !== undefined && !(Number.isSafeInteger(submitBatchSize) && submitBatchSize > 0)) {
    throw invalid('an integer of at least 1', 'submitBatchSize', submitBatchSize);
  }
}

function checkFeatures(features: ReadonlySet<string>, required: readonly string[], of: string) {
  const lacking = required.filter(name => !features.has(name));
  if (lacking.length > 0) {
    throw new Error(`flashAttention: the WebGPU adapter ${of} lacks ${lacking.join(', ')} (requiredFeatures)`);
  }
}

/** Reports of the backends that were made here. */
const reports = new WeakMap<WebGPUBackend, WebGPUReport>();

async function enableNow(options: WebGPUOptions): Promise<WebGPUReport> {
  const {replace = false, requiredFeatures = [], powerPreference = 'high-performance', submitBatchSize} = options;
  const wasRegistered = isRegistered();
  const {WebGPUBackend} = await importWebGPUBackend();
  if (!wasRegistered && isRegistered()) {
    removeBackend(WEBGPU); // loading it registers a backend where there is navigator.gpu: not what was asked for
  }
  const old = await runningBackend();
  const known = old && reports.get(old);
  let report: WebGPUReport;
  if (known && !replace && !await isLost(old.device)) {
    checkFeatures(new Set(known.features), requiredFeatures, known.adapter);
    await engine().setBackend(WEBGPU);
    report = known;
  } else {
    await checkReplaceable(old, replace);
    const adapter = await findAdapter(powerPreference);
    checkFeatures(adapter.features, requiredFeatures, adapterName(adapter.info));
    const device = await requestFullDevice(adapter);
    const backend = guardBackend(new WebGPUBackend(device, adapter.info));
    report = makeReport(adapter, device, await replaceBackend(old, backend));
    reports.set(backend, report);
    if (known) {
      old.device.destroy(); // nobody else's
    }
    const {what, variablesMoved, tensorsLost} = report.replaced;
    if (what === 'backend' && tensorsLost > 0) {
      console.warn('flashAttention: enableWebGPU replaced a webgpu backend; its variables were copied ' +
                   `(${variablesMoved}), its other tensors are gone (${tensorsLost})`);
    }
  }
  if (submitBatchSize !== undefined) {
    env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', submitBatchSize);
  }
  return report;
}

/** Calls that overlap come one after the other. */
let before: Promise<unknown> = Promise.resolve();

/** {@link enableWebGPU}, once the options are checked by name and navigator.gpu is where it may be. */
export function enable(options: WebGPUOptions): Promise<WebGPUReport> {
  const result = before.then(() => {
    checkOptions(options);
    return enableNow(options);
  });
  before = result.catch(() => undefined);
  return result;
}

/**
 * Registers tfjs' `webgpu` backend on a device with all that the adapter offers (float16, subgroups, subgroup matrices,
 * timestamps, every limit), starts it and makes it the current backend. Without this call everything runs too, on the
 * device that tfjs asks for, which has fewer features and smaller limits.
 *
 * ```js
 * import {enableWebGPU} from 'tfjs-flash-attention';   // in Node: 'tfjs-flash-attention/node'
 * const {adapter, hardware, missing} = await enableWebGPU();
 * ```
 *
 * After the device was lost (a driver that restarted, a laptop that switched GPUs), every use of the backend throws and
 * says so; the same call gives a new backend. Tensors are gone with the device: put saved weights back with
 * `model.setWeights` or `variable.assign`, and make optimizers anew. A call while the backend from an earlier one is
 * well gives its report.
 *
 * @returns what was got, what is missing, and what became of a backend that was there: see {@link WebGPUReport}.
 * @throws where there is no WebGPU, with the reason and the remedy; where `requiredFeatures` are not there; where a
 *     running `webgpu` backend holds tensors and `replace` is not set. Nothing is changed then.
 */
export async function enableWebGPU(options: WebGPUOptions = {}): Promise<WebGPUReport> {
  checkOptionNames(options, WEBGPU_OPTIONS);
  return enable(options);
}
