import type {KernelName} from './kernel_names.js';
import {MASK_GROUP} from './mask_bits.js';
import {isWatched} from './matrix_plan.js';
import {isMatrixPlan, sizesOf} from './plan.js';
import type {Plan} from './plan.js';
import {unrollLoops} from './unroll.js';
import {WGSL} from './wgsl_sources.js';

type Part = keyof typeof WGSL;

/**
 * The files of kernels/wgsl that a kernel is made of, in order, after the header. Where something is optional that
 * takes a binding, one of two files declares the same functions with it and without: WebGPU counts every binding that
 * a shader mentions, and devices may have as few as 8.
 */
function partsOf(plan: Plan): Part[] {
  const table: Part[] = [plan.tableVec4 > 0 ? 'table' : 'no_table', 'sequence'];
  const pages: Part = plan.paged ? 'pages' : 'no_pages';
  const secondResult: Part =
      plan.sharedResult ? 'shared_result' : plan.vectorised ? 'second_result_vec4' : 'second_result_scalar';
  if (plan.kernel === 'row_statistics') {
    return [...table, plan.kernel];
  }
  if (plan.kernel === 'merge_splits') {
    return [...table, 'merge_parts', plan.rows > 1 ? 'merge_rows' : 'merge_splits'];
  }
  if (plan.kernel === 'to_half') {
    return [
      ...table, pages, 'half', 'float_rows', 'to_half', plan.hasDOutput ? 'to_half_d_output' : 'no_to_half_d_output',
    ];
  }
  if (plan.kernel === 'pack_mask') {
    return [plan.kernel];
  }
  if (plan.kernel === 'cache_append') {
    return [...table, pages, secondResult, plan.kernel];
  }
  const pairs: Part[] = [
    ...table, pages, plan.mask ? 'mask' : 'no_mask',
    plan.bias ? (plan.biasVec4 ? 'bias_vec4' : 'bias') : 'no_bias', 'philox', 'visibility', 'scores',
  ];
  if (isMatrixPlan(plan)) {
    const gradient: Part[] = ['finite', 'exponents', 'pair_gradients', 'matrix_gradient', 'matrix_pairs'];
    const own: {readonly [kernel in KernelName]?: Part[]} = {
      forward: ['matrix_rows', 'matrix_softmax', ...matrixForward(plan)],
      backward_dq: [...gradient, 'matrix_dq'],
      backward_dkv: [...gradient, secondResult, 'matrix_dkv'],
    };
    return [...pairs, 'half', 'matrix', ...own[plan.kernel]!];
  }
  if (plan.kind === 'decode') {
    return [...pairs, 'threads', 'always', ...decodeSums(plan), 'decode'];
  }
  const tiles: Part[] = ['threads', 'tiles', 'stage', plan.routed ? 'finite' : 'always'];
  const own: Record<typeof plan.kernel, Part[]> = {
    forward: ['query_tile', ...reductions(plan), 'forward'],
    backward_dq: ['pair_gradients', 'score_gradient', 'query_tile', 'backward_dq'],
    backward_dkv: ['pair_gradients', 'score_gradient', 'key_tile', secondResult, 'backward_dkv'],
    backward_dbias: ['pair_gradients', 'score_gradient', 'backward_dbias'],
  };
  return [...pairs, ...tiles, ...own[plan.kernel]];
}

function matrixForward(plan: Plan): Part[] {
  if (plan.splitOperands) {
    return ['finite', 'exponents', 'half_operands', 'matrix_forward_split'];
  }
  const watch: Part[] = ['matrix_output', 'float_rows', 'float_operands', 'matrix_watch'];
  if (isWatched(plan)) {
    return [...watch, 'matrix_watched'];
  }
  return plan.watchesItself ?
      ['half_operands', ...watch, 'watched_here', 'matrix_forward'] :
      ['no_exponents', 'half_operands', 'matrix_output', 'watched_later', 'matrix_forward'];
}

/** The entry point and how the threads of a row meet. */
function reductions({subgroups}: Plan): Part[] {
  return subgroups ? ['lanes', 'reduce_subgroup'] : ['no_lanes', 'reduce_workgroup'];
}

function decodeSums({subgroups}: Plan): Part[] {
  return subgroups ? ['lanes', 'sum_subgroup'] : ['no_lanes', 'sum_workgroup'];
}

/** Language extensions, which come before all else in a shader. */
function enables(plan: Plan): string[] {
  if (isMatrixPlan(plan)) {
    // Which subgroup a thread is in follows from its index, but the uniformity analysis cannot know that.
    return [
      'enable f16, subgroups, chromium_experimental_subgroup_matrix;',
      'diagnostic(off, chromium.subgroup_matrix_uniformity);',
    ];
  }
  return plan.subgroups ? ['enable subgroups;'] : [];
}

/** SCREAMING_SNAKE_CASE of a field's name: the name of its WGSL constant. */
function constantName(field: string): string {
  return field.replace(/([a-z])([A-Z])/g, '$1_$2').toUpperCase();
}

/** The constants of a plan as WGSL declarations. */
export function header(plan: Plan): string {
  const {kernel, kind, vectorised, matrix, unrolled, ...constants} = plan;
  const all = {
    ...constants, matrix: isMatrixPlan(plan), ofBias: kernel === 'backward_dbias', maskGroup: MASK_GROUP,
    ...sizesOf(plan),
  };
  const lines = Object.entries(all).map(
      ([field, value]) => `const ${constantName(field)} = ${typeof value === 'number' ? `${value}u` : value};`);
  const how = `${vectorised ? '' : ', one float at a time'}${unrolled ? ', loops written out' : ''}`;
  const title = `// ${kernel}, ${kind}${how}`;
  return `${[...enables(plan), title, ...lines].join('\n')}\n`;
}

/**
 * The WGSL text of a plan: a header of constants, then the kernel's files as they are, or with their loops written out.
 */
export function specialise(plan: Plan): string {
  const access: keyof typeof WGSL = plan.vectorised ? 'access_vec4' : 'access_scalar';
  const text = [header(plan), WGSL.params, WGSL[access], ...partsOf(plan).map(part => WGSL[part])].join('\n');
  return plan.unrolled ? unrollLoops(text) : text;
}
