/** The limits of a GPUDevice that plans and windows depend on. */
export type DeviceLimits = Pick<
    GPUSupportedLimits,
    'maxComputeWorkgroupStorageSize'|'maxComputeInvocationsPerWorkgroup'|'maxComputeWorkgroupSizeX'|
    'maxComputeWorkgroupsPerDimension'|'maxStorageBufferBindingSize'|'maxBufferSize'|
    'minStorageBufferOffsetAlignment'|'maxStorageBuffersPerShaderStage'|'maxUniformBufferBindingSize'>;

/** A product of subgroup matrices: [M,K]·[K,N] of f16, added up in f32. */
export interface MatrixShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What a device offers beyond WebGPU's core, as far as it was asked for. Plain data. */
export interface Capabilities {
  readonly limits: DeviceLimits;
  /** Lanes of a subgroup, the fewest and the most that a shader may meet: powers of two from 4 to 128. */
  readonly subgroups?: {readonly min: number, readonly max: number};
  /** WGSL has the type f16. */
  readonly f16: boolean;
  /** The products of subgroup matrices that the adapter lists; none where the device was not asked for them. */
  readonly matrix: readonly MatrixShape[];
}

/** A device with nothing but its limits, as tfjs' own is. */
export function stockCapabilities(limits: DeviceLimits): Capabilities {
  return {limits, f16: false, matrix: []};
}

/** What adapters say of themselves beyond the types of today's WebGPU. */
interface AdapterInfo {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  /** Dawn's. */
  readonly subgroupMatrixConfigs?:
      ReadonlyArray<MatrixShape&{readonly componentType: string, readonly resultComponentType: string}>;
}

/** What there was before a browser told the sizes of its subgroups. */
const ALL_SUBGROUPS = {min: 4, max: 128};

type Extensions = Omit<Capabilities, 'limits'>;

const known = new WeakMap<GPUDevice, Extensions>();

function extensionsOf(device: GPUDevice, info: AdapterInfo): Extensions {
  const has = (feature: string) => (device.features as ReadonlySet<string>).has(feature);
  const {subgroupMinSize, subgroupMaxSize, subgroupMatrixConfigs = []} = info;
  return {
    ...has('subgroups') && {
      subgroups: subgroupMinSize && subgroupMaxSize ? {min: subgroupMinSize, max: subgroupMaxSize} : ALL_SUBGROUPS,
    },
    f16: has('shader-f16'),
    matrix: has('shader-f16') && has('chromium-experimental-subgroup-matrix') ?
        subgroupMatrixConfigs
            .filter(({componentType, resultComponentType}) => componentType === 'f16' && resultComponentType === 'f32')
            .map(({M, N, K}) => ({M, N, K})) :
        [],
  };
}

/**
 * To be called with each device that is made here, and `adapter.info` of its adapter: a device's own copy of it leaves
 * out the subgroup matrices (webgpu 0.6.2).
 */
export function noteAdapter(device: GPUDevice, info: GPUAdapterInfo): void {
  known.set(device, extensionsOf(device, info as AdapterInfo));
}

/** What a device offers: its extensions read once, its limits whenever they are looked at. */
export function capabilitiesOf(device: GPUDevice): Capabilities {
  let extensions = known.get(device);
  if (!extensions) {
    extensions = extensionsOf(device, (device as {adapterInfo?: AdapterInfo}).adapterInfo ?? {});
    known.set(device, extensions);
  }
  return {limits: device.limits, ...extensions};
}
