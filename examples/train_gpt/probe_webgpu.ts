import {fork} from 'node:child_process';
import {extname} from 'node:path';
import {fileURLToPath} from 'node:url';

/** What Dawn finds, without its adapter object. */
export interface Probe {
  readonly found: boolean;
  /** False for an emulation on the CPU. */
  readonly hardware: boolean;
  readonly description: string;
}

const TIMEOUT_MS = 60_000;
/** This file; in a bundle, the program of its name that lies beside the one that it is bundled into. */
const self = fileURLToPath(new URL(`probe_webgpu${extname(import.meta.url)}`, import.meta.url));

/**
 * Looks for a WebGPU adapter in a process of its own. Drivers and Dawn write warnings to stderr when there is no GPU,
 * and a broken driver takes its process down; neither should happen to a run that then goes on without WebGPU.
 */
export function probeWebGPU(): Promise<Probe> {
  return new Promise(resolve => {
    const child = fork(self, ['--probe'], {stdio: ['ignore', 'ignore', 'ignore', 'ipc'], timeout: TIMEOUT_MS});
    let probe: Probe = {found: false, hardware: false, description: 'looking for a WebGPU adapter failed'};
    child.on('message', message => {
      probe = message as Probe;
      child.kill();
    });
    child.on('error', () => resolve(probe));
    child.on('exit', () => resolve(probe));
  });
}

if (process.argv[1] === self && process.argv[2] === '--probe') {
  const {enableWebGPU} = await import('../../src/backends/webgpu/node_device.js');
  process.send!(await enableWebGPU().then(
      ({adapter, hardware}): Probe => ({found: true, hardware, description: adapter}),
      (error: Error): Probe =>
          ({found: false, hardware: false, description: error.message.replace(/^flashAttention: /, '')})));
}
