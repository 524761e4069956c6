/**
 * Node: `enableWebGPU` through Dawn, the native addon's report, threads and device, and all that the main entry
 * exports.
 */
export type {CudaDevice, CudaReport, NativeCalls} from './backends/native/binding.js';
export {nativeReport, setNativeDevice, setNativeThreads} from './backends/native/report.js';
export type {NativeDevice, NativeDeviceOptions, NativeReport} from './backends/native/report.js';
export {enableWebGPU} from './backends/webgpu/node_device.js';
export type {NodeWebGPUOptions} from './backends/webgpu/node_device.js';
export * from './index.js';
