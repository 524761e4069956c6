/** The WGSL kernels: kernels/wgsl/<name>.wgsl. */
export const KERNEL_NAMES = [
  'forward', 'merge_splits', 'row_statistics', 'backward_dq', 'backward_dkv', 'backward_dbias', 'cache_append',
  'to_half', 'pack_mask',
] as const;
export type KernelName = typeof KERNEL_NAMES[number];

/** Kernels without tiles: one thread to a row (row_statistics), to a vec4 of a row, or to a row of a mask. */
const ROW_KERNELS: readonly KernelName[] =
    ['row_statistics', 'merge_splits', 'cache_append', 'to_half', 'pack_mask'];

export const isTiled = (kernel: KernelName): boolean => !ROW_KERNELS.includes(kernel);
