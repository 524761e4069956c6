// No type of WebGPU itself in here: the main entry exports these to people who may have none.

/** An operand shape that the device's matrix units take: (M×K)·(K×N) → M×N. */
export interface MatrixConfiguration {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly componentType: string;
  readonly resultComponentType: string;
}

/** Something that the adapter does not offer. */
export interface MissingFeature {
  /** Name of the WebGPU feature or limit. */
  readonly name: string;
  /** What it would have given. */
  readonly wouldGive: string;
  /** How to get it where it is only switched off. */
  readonly remedy?: string;
}

/** What became of a `webgpu` backend that was there before. */
export interface Replaced {
  /**
   * `'nothing'`: there was none. `'registration'`: it was registered and had not started. `'backend'`: it had started.
   * `'lost backend'`: its device was lost, and all its tensors with it.
   */
  readonly what: 'nothing'|'registration'|'backend'|'lost backend';
  /** Variables (weights of models, moments of optimizers) that were copied to the new backend. */
  readonly variablesMoved: number;
  /** Tensors that stayed behind: using one is an error from now on. */
  readonly tensorsLost: number;
}

/** What `enableWebGPU` got. Plain data: it can be logged and kept as JSON. */
export interface WebGPUReport {
  /** Vendor, architecture, device and description of the adapter, as far as it tells. */
  readonly adapter: string;
  readonly info: {
    readonly vendor: string, readonly architecture: string, readonly device: string, readonly description: string,
  };
  /** False for an emulation on the CPU (SwiftShader, llvmpipe). */
  readonly hardware: boolean;
  /** Features of the device, sorted. */
  readonly features: readonly string[];
  /** Limits of the device by name. */
  readonly limits: Readonly<Record<string, number>>;
  /** Smallest and largest subgroup; absent without subgroups. */
  readonly subgroupSizes?: readonly [number, number];
  /** Empty without subgroup matrices. */
  readonly matrixConfigurations: readonly MatrixConfiguration[];
  readonly missing: readonly MissingFeature[];
  readonly replaced: Replaced;
}
