import * as tf from '@tensorflow/tfjs';

import '../../src/index.js';
import {registerNodeWebGPU} from '../../src/backends/webgpu/node_device.js';

/**
 * Brings up WebGPU for the specs that run in Node. SwiftShader takes 3–5 s to compile a kernel that WebGPU makes it
 * clear workgroup memory in, 0.3 s without (2 CPU cores, 2026-11-23); our kernels do not count on cleared memory.
 */
registerNodeWebGPU({
  dawnFlags: ['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,disable_workgroup_init'],
});
if (!await tf.setBackend('webgpu')) {
  throw new Error('the WebGPU specs need an adapter; see the warning above');
}
