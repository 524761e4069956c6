import {adapterName} from './make_report.js';
import {rememberedWinners} from './winners.js';
import type {Winners} from './winners.js';

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
  /** A CPU passes for a GPU, as far as the adapter tells. */
  readonly isFallback?: boolean;
  /** WGSL has the type f16. */
  readonly f16: boolean;
  /** The products of subgroup matrices that the adapter lists; none where the device was not asked for them. */
  readonly matrix: readonly MatrixShape[];
  /** What `tune` found to be fastest on this adapter, if it did. */
  readonly winners?: Winners;
}

/** A device with nothing but its limits, as tfjs' own is. */
export function stockCapabilities(limits: DeviceLimits): Capabilities {
  return {limits, f16: false, matrix: []};
}

/** What adapters say of themselves beyond the types of today's WebGPU. */
interface AdapterInfo extends Partial<Pick<GPUAdapterInfo, 'vendor'|'architecture'|'device'|'description'>> {
  readonly isFallbackAdapter?: boolean;
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  /** Dawn's. */
  readonly subgroupMatrixConfigs?:
      ReadonlyArray<MatrixShape&{readonly componentType: string, readonly resultComponentType: string}>;
}

/** What there was before a browser told the sizes of its subgroups. */
const ALL_SUBGROUPS = {min: 4, max: 128};

export type Extensions = Omit<Capabilities, 'limits'>;

const known = new WeakMap<GPUDevice, Extensions>();

const adapters = new WeakMap<GPUDevice, AdapterInfo>();

/**
 * Remembers which adapter a device came from. Dawn lists the products of subgroup matrices with the adapter only: a
 * device of which this is not known passes for one without.
 */
export function noteAdapter(device: GPUDevice, info: GPUAdapterInfo): void {
  adapters.set(device, info as AdapterInfo);
  known.delete(device);
}

const infoOf = (device: GPUDevice): AdapterInfo =>
    adapters.get(device) ?? (device as {adapterInfo?: AdapterInfo}).adapterInfo ?? {};

function readExtensions(device: GPUDevice): Extensions {
  const has = (feature: string) => (device.features as ReadonlySet<string>).has(feature);
  const {isFallbackAdapter, subgroupMinSize, subgroupMaxSize, subgroupMatrixConfigs = []} = infoOf(device);
  return {
    ...isFallbackAdapter && {isFallback: true},
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

/** What a device offers beyond its limits, read once. */
export function extensionsOf(device: GPUDevice): Extensions {
  let extensions = known.get(device);
  if (!extensions) {
    const read = readExtensions(device);
    const winners = rememberedWinners(adapterIdentity(infoOf(device), {limits: device.limits, ...read}));
    extensions = {...read, ...winners && {winners}};
    known.set(device, extensions);
  }
  return extensions;
}

/**
 * What winners are remembered by: the adapter's name (Dawn's has the driver's version), and what it gave, since a stock
 * device of the same adapter has other kinds of plans and other tiles. Pure.
 */
export function adapterIdentity(info: AdapterInfo, {limits, subgroups, f16, matrix}: Capabilities): string {
  return [
    adapterName(info), subgroups && `subgroups ${subgroups.min}-${subgroups.max}`, f16 && 'f16',
    matrix.length > 0 && `matrices ${matrix.map(({M, N, K}) => `${M}x${N}x${K}`).join(' ')}`,
    `workgroups ${limits.maxComputeInvocationsPerWorkgroup}, ${limits.maxComputeWorkgroupStorageSize} bytes`,
  ].filter(Boolean).join(', ');
}

export const adapterOf = (device: GPUDevice): string =>
    adapterIdentity(infoOf(device), {limits: device.limits, ...extensionsOf(device)});

/** From now on these win on the device, beside those that did. To be followed by `forgetPrepared`. */
export function noteWinners(device: GPUDevice, winners: Winners): void {
  const extensions = extensionsOf(device);
  known.set(device, {...extensions, winners: {...extensions.winners, ...winners}});
}
