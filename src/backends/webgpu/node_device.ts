import {engine, registerBackend} from '@tensorflow/tfjs-core';

import {noteAdapter} from './capabilities.js';

/** How WebGPU is brought up in Node. */
export interface NodeWebGPUOptions {
  /**
   * Dawn's switches, as `create` of the npm package `webgpu` takes them. Default: what shader-f16 on NVIDIA and
   * subgroup matrices need. Read once, when WebGPU is first asked for.
   */
  dawnFlags?: string[];
  /** Default `'high-performance'`. */
  powerPreference?: GPUPowerPreference;
}

/** What there is to run WebGPU on. */
export interface NodeAdapter {
  adapter?: GPUAdapter;
  /** False for an emulation on the CPU (SwiftShader, llvmpipe). */
  hardware: boolean;
  /** The adapter's name, or what stands in the way of having one, with the remedy. */
  description: string;
}

const DAWN_FLAGS = ['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'];
const EMULATIONS = /swiftshader|llvmpipe|lavapipe/i;
const BACKEND_PRIORITY = 3; // as tfjs-backend-webgpu itself

/** What the npm package `webgpu` exports. */
interface Dawn {
  create(flags: string[]): GPU;
  globals: Record<string, unknown>;
}

let started: Promise<GPU>|undefined;

async function importOptional<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    throw new Error(
        `flashAttention: WebGPU in Node needs the package ${name}, which does not load ` +
        `(${(error as Error).message.split('\n')[0]}); run: npm install ${name}`);
  }
}

/** Starts Dawn and puts WebGPU's globals (GPUBufferUsage, navigator.gpu, …) where tfjs looks for them. */
async function startDawn(flags: string[]): Promise<GPU> {
  if (globalThis.navigator?.gpu) {
    return globalThis.navigator.gpu;
  }
  // tfjs-backend-webgpu registers a backend of its own if it finds navigator.gpu when it loads. Load it before.
  await importOptional('@tensorflow/tfjs-backend-webgpu', () => import('@tensorflow/tfjs-backend-webgpu'));
  const dawn = await importOptional('webgpu', async () => await import('webgpu') as unknown as Dawn);
  Object.assign(globalThis, dawn.globals);
  const gpu = dawn.create(flags);
  if (!globalThis.navigator) {
    // Node 20 has no navigator. tfjs reads the user agent of one that is there.
    Object.defineProperty(
        globalThis, 'navigator', {value: {userAgent: `Node.js/${process.versions.node}`}, configurable: true});
  }
  Object.defineProperty(globalThis.navigator, 'gpu', {value: gpu, configurable: true});
  return gpu;
}

/** Looks for an adapter without registering anything. Does not throw. */
export async function findNodeAdapter(options: NodeWebGPUOptions = {}): Promise<NodeAdapter> {
  try {
    started ??= startDawn(options.dawnFlags ?? DAWN_FLAGS);
    const gpu = await started;
    const adapter = await gpu.requestAdapter({powerPreference: options.powerPreference ?? 'high-performance'});
    if (!adapter) {
      return {
        hardware: false,
        description: 'flashAttention: no WebGPU adapter found; on Linux install the Vulkan loader ' +
            '(apt-get install libvulkan1) and the GPU\'s Vulkan driver',
      };
    }
    const {info} = adapter;
    return {
      adapter,
      hardware: !info.isFallbackAdapter && !EMULATIONS.test(`${info.architecture} ${info.description}`),
      description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' '),
    };
  } catch (error) {
    return {hardware: false, description: (error as Error).message};
  }
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

/**
 * Registers tfjs' `webgpu` backend on Dawn. The device is made when the backend is first used:
 * `await tf.setBackend('webgpu')`, or `await tf.ready()`, which takes it before all others.
 * A `webgpu` backend that is registered already is left as it is, with a warning.
 */
export function registerNodeWebGPU(options: NodeWebGPUOptions = {}): void {
  if ('webgpu' in engine().registryFactory) {
    console.warn('flashAttention: a webgpu backend is registered already and stays; ' +
                 'tf.removeBackend(\'webgpu\') before importing tfjs-flash-attention/node replaces it');
    return;
  }
  registerBackend('webgpu', async () => {
    const {adapter, description} = await findNodeAdapter(options);
    if (!adapter) {
      throw new Error(description);
    }
    const {WebGPUBackend} = await import('@tensorflow/tfjs-backend-webgpu');
    return new WebGPUBackend(await requestFullDevice(adapter), adapter.info);
  }, BACKEND_PRIORITY);
}
