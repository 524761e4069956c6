// The programs of this folder, from the sources of the addon without its doors to Node and TensorFlow; and an addon on
// the fake libcuda.
import {fileURLToPath} from 'node:url';

import {addonSources, build, machineVariant, sourcesIn} from '../../scripts/build_native/build.mjs';

const WITHOUT_DOORS = ['check_strides', 'description', 'run_call'].map(name => `kernels/addon/${name}.cc`);

const FAKE_IMAGES = 'test/cuda/fake_images.cc';
/** Of buildFake('fake_libcuda', []). */
export const FAKE_LIBCUDA = 'build/cuda_host/fake_libcuda.so';
const CPU_DEVICE_KERNELS = 'test/cuda/cpu_device_kernels.cc';
const INCLUDES = ['test', 'test/cuda'];

/** A program on the fake libcuda. @returns its path */
export async function buildHostProgram(name, sanitizers, log, {defines = [], more = []} = {}) {
  const variant = await machineVariant(sanitizers);
  const output = `build/cuda_host/${name}_${variant.name}`;
  const sources = [...sourcesIn('kernels/cpu'), ...WITHOUT_DOORS, ...sourcesIn('kernels/cuda'),
    ...sourcesIn('kernels/cuda/hopper'), ...more, FAKE_IMAGES, `test/cuda/${name}.cc`];
  await build(variant, {kind: 'program', sources, output, includes: INCLUDES, defines}, {log});
  return output;
}

/** Those that also run the ops' kernels for TensorFlow's GPU. @returns the program's path */
export const buildTensorFlowProgram = (name, sanitizers, log, defines) => buildHostProgram(name, sanitizers, log,
    {defines, more: ['kernels/addon/tensorflow_gpu_call.cc', CPU_DEVICE_KERNELS]});

/** A fake libcuda. @returns its path */
export async function buildFake(name, defines) {
  const variant = {...await machineVariant(), name};
  const output = `build/cuda_host/${name}.so`;
  await build(variant, {kind: 'library', sources: ['test/cuda/fake_libcuda.cc'], output, defines}, {log: () => {}});
  return output;
}

/** The addon with kernels for CPUs in the place of those for devices. @returns its path */
export async function buildFakeAddon(log) {
  const output = 'build/cuda_host/flash_attention.node';
  const sources = addonSources(FAKE_IMAGES)
      .map(source => source === 'kernels/addon/device_kernels.cc' ? CPU_DEVICE_KERNELS : source);
  await build(await machineVariant(), {kind: 'addon', sources, output}, {log});
  return output;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildFake('fake_libcuda', []);
  await buildFakeAddon(line => console.log(line));
}
