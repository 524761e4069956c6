import {derive} from './plan.js';
import type {KernelName, Plan} from './plan.js';
import {WGSL} from './wgsl_sources.js';

/** The files of kernels/wgsl that a kernel is made of, in order, after the header and the access to buffers. */
const PARTS: Record<KernelName, Array<keyof typeof WGSL>> = {
  forward: ['philox', 'visibility', 'tiles', 'stage', 'query_tile', 'forward'],
  row_statistics: ['row_statistics'],
  backward_dq: ['philox', 'visibility', 'tiles', 'stage', 'score_gradient', 'query_tile', 'backward_dq'],
  backward_dkv: ['philox', 'visibility', 'tiles', 'stage', 'score_gradient', 'key_tile', 'backward_dkv'],
};

/** SCREAMING_SNAKE_CASE of a field's name: the name of its WGSL constant. */
function constantName(field: string): string {
  return field.replace(/([a-z])([A-Z])/g, '$1_$2').toUpperCase();
}

/** The constants of a plan as WGSL declarations. */
export function header(plan: Plan): string {
  const {kernel, vectorised, ...constants} = plan;
  const all = {...constants, ...derive(plan)};
  const lines = Object.entries(all).map(
      ([field, value]) => `const ${constantName(field)} = ${typeof value === 'number' ? `${value}u` : value};`);
  return `// ${kernel}${vectorised ? '' : ', one float at a time'}\n${lines.join('\n')}\n`;
}

/** The WGSL text of a plan: a header of constants, then the kernel's files as they are. */
export function specialise(plan: Plan): string {
  const access: keyof typeof WGSL = plan.vectorised ? 'access_vec4' : 'access_scalar';
  return [header(plan), WGSL.params, WGSL[access], ...PARTS[plan.kernel].map(part => WGSL[part])].join('\n');
}
