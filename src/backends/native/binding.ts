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
  /** Where calls on the host's memory compute from now on; `mayUseCpu`: a CPU in the place of a device that fails. */
  setDevice(name: string, mayUseCpu: boolean): void;
  /** As it was set: 'cpu', 'cuda' or 'cuda:<number>'. */
  device(): string;
  /** Why a CPU computed in the place of a device, where one did since this was last asked. */
  takeNotice(): string|undefined;
  /** What there is of CUDA; opens the driver. */
  cuda(): CudaReport;
  /**
   * Gives the TensorFlow of the process our ops, and kernels for its GPUs if it uses any. However often.
   * @returns whether there are such
   */
  registerTensorFlow(withGpu: boolean): boolean;
  /** Calls that ran since the addon was loaded into the process. */
  calls(): NativeCalls;
}

/** A CUDA device. */
export interface CudaDevice {
  /** By which `setNativeDevice` knows it: 'cuda:0', … */
  readonly device: string;
  readonly name: string;
  /** '9.0', … */
  readonly computeCapability: string;
  readonly memoryBytes: number;
  /** What the addon's kernels for it are: machine code as 'sm_90a', PTX as 'compute_100'; absent without any. */
  readonly code?: string;
}

/** What there is of CUDA. */
export interface CudaReport {
  /** The CUDA that the NVIDIA driver is for, '13.0'; absent without a driver. */
  readonly driver?: string;
  /** The CUDA that made the addon's kernels; absent where it was built without. */
  readonly kernels?: string;
  /**
   * Whether the driver (12.4 or newer) puts work in order with TensorFlow's; else every call on TensorFlow's GPU waits
   * for what the GPU was given before, and for its own end.
   */
  readonly contextEvents: boolean;
  /** All devices that the driver shows. */
  readonly devices: readonly CudaDevice[];
  /** Why the addon can use none of them; absent where it can. */
  readonly problem?: string;
}

export interface NativeCalls {
  readonly forward: number;
  readonly backward: number;
  readonly append: number;
  /** How many of these TensorFlow made. */
  readonly tensorflow: number;
  /** How many a CUDA device computed. */
  readonly cuda: number;
  /** How many a CPU computed in the place of a CUDA device that was lost, busy or full. */
  readonly inPlaceOfCuda: number;
}

export type HostArray = Float32Array|Int32Array|Uint8Array;
