// The programs of this folder, from the sources of the addon without its doors to Node and TensorFlow.
import {build, machineVariant, sourcesIn} from '../../scripts/build_native/build.mjs';

const WITHOUT_DOORS = ['check_strides', 'description', 'run_call'].map(name => `kernels/addon/${name}.cc`);

/** A program on the fake libcuda. @returns its path */
export async function buildHostProgram(name, sanitizers, log, defines = []) {
  const variant = await machineVariant(sanitizers);
  const output = `build/cuda_host/${name}_${variant.name}`;
  const sources = [...sourcesIn('kernels/cpu'), ...WITHOUT_DOORS, ...sourcesIn('kernels/cuda'),
    ...sourcesIn('kernels/cuda/hopper'), 'test/cuda/fake_images.cc', `test/cuda/${name}.cc`];
  await build(variant, {kind: 'program', sources, output, includes: ['test', 'test/cuda'], defines},
      {log});
  return output;
}

/** A fake libcuda. @returns its path */
export async function buildFake(name, defines) {
  const variant = {...await machineVariant(), name};
  const output = `build/cuda_host/${name}.so`;
  await build(variant, {kind: 'library', sources: ['test/cuda/fake_libcuda.cc'], output, defines}, {log: () => {}});
  return output;
}
