import '../../src/index.js';
import {enableWebGPU} from '../../src/backends/webgpu/node_device.js';
import {setWinnerStorage} from '../../src/backends/webgpu/winners.js';

// Not what this user once tuned.
setWinnerStorage(() => ({place: 'nowhere', read: () => null, write: () => undefined}));

/**
 * Brings up WebGPU for the specs that run in Node. SwiftShader takes 3–5 s to compile a kernel that WebGPU makes it
 * clear workgroup memory in, 0.3 s without (2 CPU cores, 2026-11-23); our kernels do not count on cleared memory.
 */
await enableWebGPU({
  dawnFlags: ['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,disable_workgroup_init'],
});
