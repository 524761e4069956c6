import type {NativeBinding} from '../../src/backends/native/binding.js';
import {nativeAddon} from '../../src/backends/native/load.js';

/** The addon. @throws where it is not built: nothing here is skipped. */
export function addon(): NativeBinding {
  const {binding, problem} = nativeAddon();
  if (!binding) {
    throw new Error(problem!.message);
  }
  return binding;
}
