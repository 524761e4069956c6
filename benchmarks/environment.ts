import {execFileSync} from 'node:child_process';
import {cpus} from 'node:os';

import * as tf from '@tensorflow/tfjs';

import {enableWebGPU} from '../src/backends/webgpu/node_device.js';

/** What a result was measured on. */
export interface Environment {
  date: string;
  commit: string;
  backend: string;
  device: string;
  node: string;
  tfjs: string;
  webgpu?: string;
}

function gitCommit(): string {
  // A bundle has no repository; its build writes the commit here.
  if (process.env.BUNDLE_COMMIT) {
    return process.env.BUNDLE_COMMIT;
  }
  try {
    const git = (...args: string[]) =>
        execFileSync('git', args, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore']}).trim();
    const dirty = git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '-dirty';
    return git('rev-parse', '--short', 'HEAD') + dirty;
  } catch {
    return 'unknown';
  }
}

/** @param adapter description of the WebGPU adapter, when there is one. */
export function describeEnvironment(adapter?: string): Environment {
  return {
    date: new Date().toISOString(),
    commit: gitCommit(),
    backend: tf.getBackend(),
    device: tf.getBackend() === 'webgpu' ? adapter ?? 'unknown' : `${cpus()[0]?.model.trim()}, ${cpus().length} cores`,
    node: process.versions.node,
    tfjs: tf.version.tfjs,
    webgpu: process.env.BUNDLE_WEBGPU,
  };
}

/** A device's name as part of a file name. */
export function slug(text: string): string {
  return text.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '').slice(0, 60);
}

/** Sets the backend, WebGPU in Node through Dawn. Gives what describes the adapter, if there is one. */
export async function useBackend(name: string): Promise<string|undefined> {
  if (name === 'webgpu') {
    return (await enableWebGPU()).adapter;
  }
  if (name === 'wasm') {
    await import('@tensorflow/tfjs-backend-wasm');
  }
  if (!await tf.setBackend(name)) {
    throw new Error(`the backend ${name} does not start`);
  }
  return undefined;
}
