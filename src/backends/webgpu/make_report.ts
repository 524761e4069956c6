import type {MatrixConfiguration, MissingFeature, Replaced, WebGPUReport} from './report.js';

/** Fields of the adapter's information that the types of WebGPU do not know yet. */
type AdapterInfo = GPUAdapterInfo&{
  readonly isFallbackAdapter?: boolean,
  readonly subgroupMinSize?: number,
  readonly subgroupMaxSize?: number,
  readonly subgroupMatrixConfigs?: Iterable<MatrixConfiguration>,
};

const EMULATIONS = /swiftshader|llvmpipe|lavapipe/i;

const MATRICES = 'chromium-experimental-subgroup-matrix';

const WANTED_FEATURES: readonly MissingFeature[] = [
  {
    name: 'shader-f16', wouldGive: 'kernels on 16-bit operands where computeType allows float16',
    remedy: 'on NVIDIA under Vulkan start Chrome with --enable-dawn-features=vulkan_enable_f16_on_nvidia',
  },
  {name: 'subgroups', wouldGive: 'row sums, maxima and broadcasts between threads without workgroup memory'},
  {
    name: MATRICES, wouldGive: 'matrix units (tensor cores) where computeType allows float16',
    remedy: 'start Chrome with --enable-unsafe-webgpu',
  },
  {name: 'timestamp-query', wouldGive: 'times of kernels in tf.time and tf.profile'},
];

/** Limits that the kernels make use of up to these values. */
const WANTED_LIMITS: ReadonlyArray<readonly [keyof GPUSupportedLimits, number, string]> = [
  ['maxStorageBuffersPerShaderStage', 9, 'dK and dV of a call with mask and bias in one pass instead of two'],
  ['maxComputeWorkgroupStorageSize', 32768, 'larger tiles'],
  ['maxComputeInvocationsPerWorkgroup', 256, 'larger workgroups'],
  ['maxStorageBufferBindingSize', 2 ** 30, 'tensors of 1 GiB that need not be cut into parts'],
];

/** A name for people: what the adapter says of itself. */
export function adapterName({vendor, architecture, device, description}: Partial<GPUAdapterInfo>): string {
  return [vendor, architecture, device, description].filter(Boolean).join(' ') || 'unnamed adapter';
}

function missingOn(device: GPUDevice): MissingFeature[] {
  return [
    ...WANTED_FEATURES.filter(({name}) => !device.features.has(name as GPUFeatureName)),
    ...WANTED_LIMITS.filter(([name, wanted]) => (device.limits[name] as number) < wanted)
        .map(([name, wanted, wouldGive]) => ({name, wouldGive: `${wouldGive} (${wanted})`})),
  ];
}

/** Puts together what there is to say about a device that `adapter` gave. */
export function makeReport(adapter: GPUAdapter, device: GPUDevice, replaced: Replaced): WebGPUReport {
  const info = adapter.info as AdapterInfo;
  const limits: Record<string, number> = {};
  for (const name in device.limits) {
    const value = device.limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') {
      limits[name] = value;
    }
  }
  const {subgroupMinSize, subgroupMaxSize} = info;
  const hasSubgroups = device.features.has('subgroups' as GPUFeatureName) && subgroupMinSize && subgroupMaxSize;
  const configurations = device.features.has(MATRICES as GPUFeatureName) ? info.subgroupMatrixConfigs ?? [] : [];
  return {
    adapter: adapterName(info),
    info: {
      vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description,
    },
    hardware: !info.isFallbackAdapter && !EMULATIONS.test(`${info.architecture} ${info.description}`),
    features: [...device.features].sort(),
    limits,
    ...hasSubgroups && {subgroupSizes: [subgroupMinSize, subgroupMaxSize]},
    matrixConfigurations: Array.from(configurations, ({M, N, K, componentType, resultComponentType}) =>
        ({M, N, K, componentType, resultComponentType})),
    missing: missingOn(device),
    replaced,
  };
}
