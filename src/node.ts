/** Node: `enableWebGPU` through Dawn, the native addon's report and threads, and all that the main entry exports. */
export type {NativeCalls} from './backends/native/binding.js';
export {nativeReport, setNativeThreads} from './backends/native/report.js';
export type {NativeReport} from './backends/native/report.js';
export {enableWebGPU} from './backends/webgpu/node_device.js';
export type {NodeWebGPUOptions} from './backends/webgpu/node_device.js';
export * from './index.js';
