import '../../src/index.js';
import {enableWebGPU} from '../../src/backends/webgpu/node_device.js';
import {setWinnerStorage} from '../../src/backends/webgpu/winners.js';

// Not what this user once tuned.
setWinnerStorage(() => ({place: 'nowhere', read: () => null, write: () => undefined}));

// While anything is under way, Dawn's addon asks for it by setImmediate over and over, which keeps a CPU busy that
// SwiftShader and lavapipe need. A millisecond between two questions leaves it to them.
const {setImmediate} = globalThis;
globalThis.setImmediate = Object.assign((callback: (...args: unknown[]) => void, ...args: unknown[]) =>
  `${callback}`.includes('[native code]') ? setTimeout(callback, 1) : setImmediate(callback, ...args), setImmediate);

/**
 * Brings up WebGPU for the specs that run in Node. SwiftShader takes 3–5 s to compile a kernel that WebGPU makes it
 * clear workgroup memory in, 0.3 s without (2 CPU cores, 2026-11-23); our kernels do not count on cleared memory.
 */
await enableWebGPU({
  dawnFlags: ['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,disable_workgroup_init'],
});
