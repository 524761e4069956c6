import {cpus} from 'node:os';

import * as tf from '@tensorflow/tfjs';

import {loadTfjsNode} from '../examples/train_gpt/tfjs_node.js';
import {gitCommit} from '../scripts/git_commit.mjs';
import {nativeReport} from '../src/backends/native/report.js';
import {enableWebGPU} from '../src/backends/webgpu/node_device.js';

import type {Environment} from './core/results.js';

export type {Environment} from './core/results.js';

/** @param adapter description of the WebGPU adapter, when there is one. */
export function describeEnvironment(adapter?: string): Environment {
  const {binding} = tf.backend() as unknown as {binding?: {TF_Version: string}};
  const native = tf.getBackend() === 'webgpu' ? undefined : nativeReport();
  return {
    date: new Date().toISOString(),
    commit: gitCommit(),
    backend: tf.getBackend(),
    device: tf.getBackend() === 'webgpu' ? adapter ?? 'unknown' : `${cpus()[0]?.model.trim()}, ${cpus().length} cores`,
    node: process.versions.node,
    tfjs: tf.version.tfjs,
    webgpu: process.env.BUNDLE_WEBGPU,
    tensorflow: binding?.TF_Version,
    native: native?.instructionSet,
    threads: native?.threads,
  };
}

/**
 * Dawn's switches for measuring: those of the package, and timestamps that are not rounded to 65 µs.
 * @param features more of them, by Dawn's names.
 */
export function measuringFlags(features: readonly string[] = []): string[] {
  const enabled = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia', ...features];
  return [`enable-dawn-features=${enabled.join()}`, 'disable-dawn-features=timestamp_quantization'];
}

/** Sets the backend, WebGPU in Node through Dawn. Gives what describes the adapter, if there is one. */
export async function useBackend(name: string, dawnFlags?: string[]): Promise<string|undefined> {
  if (name === 'webgpu') {
    return (await enableWebGPU({dawnFlags})).adapter;
  }
  if (name === 'wasm') {
    await import('@tensorflow/tfjs-backend-wasm');
  }
  if (name === 'tensorflow') {
    loadTfjsNode();
  }
  if (!await tf.setBackend(name)) {
    throw new Error(`the backend ${name} does not start`);
  }
  return undefined;
}
