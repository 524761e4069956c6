import {deviceOf} from '../support/webgpu_device.js';

/** One of a device's subgroup matrix products: left [M,K] · right [K,N] → result [M,N]. */
interface MatrixConfig {
  M: number;
  N: number;
  K: number;
  componentType: string;
  resultComponentType: string;
}

type MatrixAdapterInfo = GPUAdapterInfo & {subgroupMatrixConfigs?: MatrixConfig[], subgroupMaxSize: number};

/** Only the adapter has them: Dawn's `device.adapterInfo.subgroupMatrixConfigs` is empty (webgpu 0.6.2). */
async function configsToF32(): Promise<{configs: MatrixConfig[], subgroupSize: number}> {
  const {info} = (await navigator.gpu.requestAdapter())! as {info: MatrixAdapterInfo};
  return {
    configs: [...info.subgroupMatrixConfigs ?? []]
        .filter(({componentType, resultComponentType}) => componentType === 'f16' && resultComponentType === 'f32'),
    subgroupSize: info.subgroupMaxSize,
  };
}

/** The product of two tiles in workgroup memory, rounded to f16, added to the result. Right: [K,N], or [N,K]. */
const shader = ({M, N, K}: MatrixConfig, subgroupSize: number, transposed: boolean) => `
enable f16;
enable chromium_experimental_subgroup_matrix;
const M = ${M};
const N = ${N};
const K = ${K};
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
var<workgroup> left_tile: array<f16, M * K>;
var<workgroup> right_tile: array<f16, K * N>;
@compute @workgroup_size(${subgroupSize}) fn main(@builtin(local_invocation_index) lane: u32) {
  for (var i = lane; i < M * K; i += ${subgroupSize}) {
    left_tile[i] = f16(left[i]);
  }
  for (var i = lane; i < K * N; i += ${subgroupSize}) {
    right_tile[i] = f16(right[i]);
  }
  workgroupBarrier();
  let a = subgroupMatrixLoad<subgroup_matrix_left<f16, K, M>, row_major>(&left_tile, 0, K);
  let b = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, ${transposed ? 'col_major' : 'row_major'}>(
      &right_tile, 0, ${transposed ? 'K' : 'N'});
  let sum = subgroupMatrixLoad<subgroup_matrix_result<f32, N, M>, row_major>(&result, 0, N);
  subgroupMatrixStore<row_major>(&result, 0, subgroupMatrixMultiplyAccumulate(a, b, sum), N);
}`;

async function multiply(code: string, left: Float32Array, right: Float32Array, initial: Float32Array) {
  const device = deviceOf();
  const pipeline = await device.createComputePipelineAsync(
      {layout: 'auto', compute: {module: device.createShaderModule({code})}});
  const buffers = [left, right, initial].map(values => {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = device.createBuffer({size: values.byteLength, usage});
    device.queue.writeBuffer(buffer, 0, values as BufferSource);
    return buffer;
  });
  const readable = device.createBuffer(
      {size: initial.byteLength, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: buffers.map((buffer, binding) => ({binding, resource: {buffer}})),
  }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(buffers[2], 0, readable, 0, initial.byteLength);
  device.queue.submit([encoder.finish()]);
  await readable.mapAsync(GPUMapMode.READ);
  const result = [...new Float32Array(readable.getMappedRange())];
  [...buffers, readable].forEach(buffer => buffer.destroy());
  return result;
}

describe('a device with subgroup matrices', () => {
  it('has f16 and a product of f16 into f32', async () => {
    const {features} = deviceOf();
    expect(features.has('shader-f16')).toBeTrue();
    expect(features.has('chromium-experimental-subgroup-matrix' as GPUFeatureName)).toBeTrue();
    expect((await configsToF32()).configs.length).toBeGreaterThan(0);
  });

  for (const transposed of [false, true]) {
    it(`multiplies right numbers from a right side laid out [${transposed ? 'N,K' : 'K,N'}]`, async () => {
      const {configs, subgroupSize} = await configsToF32();
      expect(configs.length).toBeGreaterThan(0);
      for (const config of configs) {
        const {M, N, K} = config;
        // Integers to ±61 are exact in f16. Their sums, in the thousands and many of them odd, are so only in f32.
        const left = Float32Array.from({length: M * K}, (_, i) => (i * 37) % 123 - 61);
        const right = Float32Array.from({length: K * N}, (_, i) => (i * 53) % 121 - 60);
        const initial = Float32Array.from({length: M * N}, (_, i) => i % 7);
        const expected = Array.from(initial, (value, i) => {
          const [row, column] = [Math.floor(i / N), i % N];
          let sum = value;
          for (let k = 0; k < K; k++) {
            sum += left[row * K + k] * right[transposed ? column * K + k : k * N + column];
          }
          return sum;
        });
        expect(expected.some(value => value % 2 !== 0 && Math.abs(value) > 2048)).toBeTrue();
        expect(await multiply(shader(config, subgroupSize, transposed), left, right, initial))
            .withContext(`${M}×${N}×${K}`).toEqual(expected);
      }
    });
  }
});
