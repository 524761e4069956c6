/** In place of kernels.ts in bundles for browsers (package.json, `browser`), which need none of what is behind it. */
export function registerNativeKernels(): void {}
