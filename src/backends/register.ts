import {getGradient, getKernel} from '@tensorflow/tfjs-core';

import {registerAttentionGradients} from '../op/gradient.js';
import {FLASH_ATTENTION, setFallbackKernels} from '../op/kernels.js';

import {hostKernels, registerHostKernels} from './host/kernels.js';
import {registerNativeKernels} from './native/kernels.js';
import {registerWebGPUKernels} from './webgpu/kernels.js';

// tfjs keeps its registries globally, so a second copy of this package (ESM beside CommonJS) finds them filled.
setFallbackKernels(registerHostKernels);
if (getGradient(FLASH_ATTENTION) == null) {
  registerAttentionGradients();
}
if (getKernel(FLASH_ATTENTION, 'webgpu') == null) {
  registerWebGPUKernels();
}
registerNativeKernels(hostKernels);
