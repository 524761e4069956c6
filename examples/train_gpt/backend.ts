import {availableParallelism, cpus} from 'node:os';

import * as tf from '@tensorflow/tfjs';

import {nativeReport} from '../../src/backends/native/report.js';
import {speedUpWasmMatMul} from '../gpt/wasm_matmul.js';

import type {BackendChoice} from './options.js';
import {probeWebGPU} from './probe_webgpu.js';
import {findTfjsNode, loadTfjsNode} from './tfjs_node.js';
import {UsageError} from './usage_error.js';

/** The backend that is set, in words for the report. */
export interface ChosenBackend {
  readonly name: string;
  /** Whether it computes on a GPU, and so deserves the larger defaults. */
  readonly onGpu: boolean;
  readonly device: string;
  /** What computes flashAttention, where that is not the backend itself. */
  readonly kernels?: string;
  /** Why WebGPU was not taken, where it would have been. */
  readonly note?: string;
}

const cpuName = (): string => `${cpus()[0]?.model.trim() ?? 'CPU'}, ${availableParallelism()} cores`;

/** Which kernels of this package serve a backend on the CPU. */
function cpuKernels(): string {
  const {loaded, instructionSet, threads, problem} = nativeReport();
  return loaded ? `native addon, ${instructionSet}, threads: ${threads}` :
                  `TypeScript on 1 thread; ${problem!.replace(/^flashAttention: /, '').replace(/\s*\n\s*/g, ' ')}`;
}

async function set(name: string): Promise<boolean> {
  try {
    return await tf.setBackend(name);
  } catch {
    return false;
  }
}

async function webgpu(mustBeHardware: boolean): Promise<ChosenBackend|{note: string}> {
  const {found, hardware, description} = await probeWebGPU();
  if (!found) {
    return {note: description};
  }
  if (mustBeHardware && !hardware) {
    return {note: `its only adapter is an emulation on the CPU (${description})`};
  }
  const {enableWebGPU} = await import('../../src/node.js');
  try {
    const {adapter} = await enableWebGPU();
    return {name: 'webgpu', onGpu: hardware, device: adapter};
  } catch (error) {
    return {note: (error as Error).message.replace(/^flashAttention: /, '')};
  }
}

async function wasm(): Promise<ChosenBackend|undefined> {
  try {
    await import('@tensorflow/tfjs-backend-wasm');
  } catch {
    return undefined;
  }
  if (!await set('wasm')) {
    return undefined;
  }
  speedUpWasmMatMul();
  return {name: 'wasm', onGpu: false, device: `${cpuName()}, WebAssembly on 1 thread`, kernels: cpuKernels()};
}

async function cpu(): Promise<ChosenBackend> {
  await set('cpu');
  return {name: 'cpu', onGpu: false, device: `${cpuName()}, JavaScript on 1 thread`, kernels: cpuKernels()};
}

/** @throws UsageError where it does not start. */
function tensorflow(): ChosenBackend {
  try {
    const {name, version, tensorflow: library} = loadTfjsNode();
    const device = `${cpuName()}, TensorFlow ${library} through ${name} ${version}`;
    return {name: 'tensorflow', onGpu: false, device, kernels: cpuKernels()};
  } catch (error) {
    throw new UsageError(`--backend tensorflow: ${(error as Error).message}`);
  }
}

/** The best backend that computes on the CPU. */
async function onCpu(): Promise<ChosenBackend> {
  if (findTfjsNode()) {
    try {
      return tensorflow();
    } catch (error) {
      console.error((error as Error).message); // it is there and broken, which somebody should know
    }
  }
  return await wasm() ?? await cpu();
}

/**
 * Sets the backend that was asked for, or the best there is: WebGPU on a GPU, else TensorFlow where tfjs-node is
 * set up, else WebAssembly, else plain JavaScript.
 * @throws UsageError when the one that was asked for is not there.
 */
export async function chooseBackend(choice: BackendChoice): Promise<ChosenBackend> {
  switch (choice) {
    case 'webgpu': {
      const found = await webgpu(false);
      if (!('name' in found)) {
        throw new UsageError(`--backend webgpu: ${found.note}`);
      }
      return found;
    }
    case 'wasm': {
      const found = await wasm();
      if (!found) {
        throw new UsageError('--backend wasm: the package @tensorflow/tfjs-backend-wasm does not start');
      }
      return found;
    }
    case 'cpu':
      return cpu();
    case 'tensorflow':
      return tensorflow();
    default: {
      const found = await webgpu(true);
      return 'name' in found ? found : {...await onCpu(), note: found.note};
    }
  }
}
