/** What the addon exports (kernels/addon/addon.cc). Errors come as exceptions, `flashAttention: …`. */
export interface NativeBinding {
  /** Of the descriptions that it takes: {@link DESCRIPTION_FORMAT}. */
  readonly format: number;
  /** Attention or its gradients, by the description; tensors and results in the description's order. */
  run(description: Float64Array, tensors: readonly HostArray[], results: readonly Float32Array[]): void;
  /** Writes rows into the arrays of a cache. */
  append(description: Float64Array, tensors: readonly HostArray[]): void;
  /** The instruction set that calls use: 'avx512', 'avx2' or 'portable'. */
  instructionSet(): string;
  /** Makes the process use another; false where there is none of that name. */
  forceInstructionSet(name: string): boolean;
  /** CPUs that the process may use. */
  defaultThreads(): number;
  threads(): number;
  /** For the process; 0: {@link defaultThreads}. */
  setThreads(count: number): void;
  /** Gives the TensorFlow of the process our ops. However often. */
  registerTensorFlow(): void;
  /** Calls that ran since the addon was loaded into the process; `tensorflow`: how many of them TensorFlow made. */
  calls(): NativeCalls;
}

export interface NativeCalls {
  readonly forward: number;
  readonly backward: number;
  readonly append: number;
  readonly tensorflow: number;
}

export type HostArray = Float32Array|Int32Array|Uint8Array;
