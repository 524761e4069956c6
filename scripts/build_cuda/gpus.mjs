// @ts-check
// Which of the architectures that kernels are made for a machine's own GPUs want.
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {ARCHITECTURES, imageOf} from './plan.mjs';

/**
 * For each device the one whose code it takes: its own, or the closest older one of its major version.
 * @param {string[]} capabilities as '9.0'
 * @returns {string[]}
 */
export function architecturesFor(capabilities) {
  const found = capabilities.flatMap(capability => {
    const [major, minor] = capability.split('.').map(Number);
    const fits = ARCHITECTURES.filter(name => {
      const image = imageOf(name);
      return image.major === major && (image.kind === 'exact' ? image.minor === minor : image.minor <= minor);
    });
    return fits.slice(-1);
  });
  return [...new Set(found)];
}

/** @returns {Promise<string[]>} none where there is no GPU, or no kernels for it */
export async function machineArchitectures() {
  const {ok, stdout} = await runTool('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader']);
  return ok ? architecturesFor(stdout.trim().split('\n').map(line => line.trim())) : [];
}
