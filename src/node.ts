import {registerNodeWebGPU} from './backends/webgpu/node_device.js';

/**
 * WebGPU in Node, through the optional peers `webgpu` (Dawn) and `@tensorflow/tfjs-backend-webgpu`: importing this
 * registers tfjs' `webgpu` backend on a device with all that the adapter offers, and exports what the main entry does.
 *
 * ```js
 * import * as tf from '@tensorflow/tfjs';
 * import {flashAttention} from 'tfjs-flash-attention/node';
 * await tf.setBackend('webgpu');   // false, with the reason on the console, when there is no adapter
 * ```
 */
registerNodeWebGPU();

export {findNodeAdapter} from './backends/webgpu/node_device.js';
export type {NodeAdapter, NodeWebGPUOptions} from './backends/webgpu/node_device.js';
export * from './index.js';
