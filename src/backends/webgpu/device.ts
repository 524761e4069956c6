import {planKey} from './plan.js';
import type {DeviceLimits, Plan} from './plan.js';
import {specialise} from './specialise.js';

/** What is remembered about a device: its compiled pipelines, and that it was lost. */
interface DeviceState {
  readonly pipelines: Map<string, GPUComputePipeline>;
  lost?: GPUDeviceLostInfo;
}

const states = new WeakMap<GPUDevice, DeviceState>();

function stateOf(device: GPUDevice): DeviceState {
  let state = states.get(device);
  if (!state) {
    const created: DeviceState = {pipelines: new Map()};
    states.set(device, created);
    void device.lost.then(info => {
      created.lost = info;
    });
    state = created;
  }
  return state;
}

/** @throws when the device is known to be lost: nothing that is recorded on it will run. */
export function checkDevice(device: GPUDevice): void {
  const {lost} = stateOf(device);
  if (lost) {
    throw new Error(
        `flashAttention: the WebGPU device was lost (${lost.reason}: ${lost.message || 'no message'}); ` +
        'its tensors are gone. Remove the backend (tf.removeBackend(\'webgpu\')), register it again and rebuild the ' +
        'model, or continue on another backend');
  }
}

/** @throws when a tensor of this many bytes cannot exist on the device. */
export function checkSize(limits: DeviceLimits, name: string, bytes: number): void {
  if (bytes > limits.maxBufferSize) {
    throw new Error(
        `flashAttention: ${name} takes ${bytes} bytes, over the WebGPU limit maxBufferSize (${limits.maxBufferSize}); ` +
        'split the batch or the heads over several calls');
  }
}

function reportCompileErrors(module: GPUShaderModule, code: string): void {
  void module.getCompilationInfo().then(({messages}) => {
    const errors = messages.filter(({type}) => type === 'error');
    if (errors.length > 0) {
      const list = errors.map(m => `${m.lineNum}:${m.linePos} ${m.message}`).join('\n');
      const numbered = code.split('\n').map((line, n) => `${String(n + 1).padStart(4)} ${line}`).join('\n');
      console.error(`flashAttention: a WGSL kernel does not compile on this device\n${list}\n${numbered}`);
    }
  });
}

/** The pipeline of a plan, compiled once a device. */
export function pipelineOf(device: GPUDevice, plan: Plan): GPUComputePipeline {
  const {pipelines} = stateOf(device);
  const key = planKey(plan);
  let pipeline = pipelines.get(key);
  if (!pipeline) {
    const code = specialise(plan);
    const module = device.createShaderModule({label: `flashAttention ${plan.kernel}`, code});
    reportCompileErrors(module, code);
    pipeline = device.createComputePipeline(
        {label: `flashAttention ${plan.kernel}`, layout: 'auto', compute: {module, entryPoint: 'main'}});
    pipelines.set(key, pipeline);
  }
  return pipeline;
}
