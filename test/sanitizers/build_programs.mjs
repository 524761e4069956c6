// node test/sanitizers/build_programs.mjs [sanitizers]: the programs of this folder, from the sources of the addon
// without its doors to Node and TensorFlow.
import {build, machineVariant, sourcesIn} from '../../scripts/build_native/build.mjs';

/** What of kernels/addon knows neither. */
const WITHOUT_DOORS = ['check_strides', 'description', 'run_call'].map(name => `kernels/addon/${name}.cc`);

/** @returns the path of the program */
export async function buildProgram(name, sanitizers, log) {
  const variant = await machineVariant(sanitizers);
  const output = `build/sanitizers/${name}_${variant.name}`;
  const sources = [...sourcesIn('kernels/cpu'), ...WITHOUT_DOORS, `test/sanitizers/${name}.cc`];
  await build(variant, {kind: 'program', sources, output}, {log});
  return output;
}
