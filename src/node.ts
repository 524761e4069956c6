/** WebGPU in Node: `enableWebGPU` through Dawn, and all that the main entry exports. Importing it starts nothing. */
export {enableWebGPU} from './backends/webgpu/node_device.js';
export type {NodeWebGPUOptions} from './backends/webgpu/node_device.js';
export * from './index.js';
