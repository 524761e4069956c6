import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities, DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {choosePlan, obstacle} from '../../src/backends/webgpu/choose.js';
import {deriveMatrix, halfShape, matrixShape} from '../../src/backends/webgpu/matrix_plan.js';
import {makePlan, makeSplit, workgroupBytes, workgroupCount, workgroupMemory} from '../../src/backends/webgpu/plan.js';
import type {KernelName, Plan} from '../../src/backends/webgpu/plan.js';
import {header, specialise} from '../../src/backends/webgpu/specialise.js';
import {makeProblem} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

const LIMITS = {
  maxComputeWorkgroupStorageSize: 49152, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024,
  maxStorageBuffersPerShaderStage: 16, maxStorageBufferBindingSize: 2 ** 31 - 4, maxBufferSize: 2 ** 34,
} as DeviceLimits;
const H100: Capabilities = {
  limits: LIMITS, f16: true, subgroups: {min: 32, max: 32},
  matrix: [{M: 16, N: 8, K: 16}, {M: 16, N: 16, K: 16}, {M: 16, N: 8, K: 8}],
};
const LAVAPIPE: Capabilities = {
  limits: {...LIMITS, maxComputeWorkgroupStorageSize: 32768}, f16: true, subgroups: {min: 8, max: 8},
  matrix: [{M: 8, N: 8, K: 8}], isFallback: true,
};

interface Shape {
  batch?: number;
  queryLength?: number;
  keyLength?: number;
  headSize?: number;
  computeType?: Problem['computeType'];
}

function problem(
    {batch = 1, queryLength = 512, keyLength = 512, headSize = 64, computeType = 'float16'}: Shape = {}): Problem {
  const keys = {shape: [batch, keyLength, 8, headSize]};
  return makeProblem({q: {shape: [batch, queryLength, 8, headSize]}, k: keys, v: keys}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
    dropoutP: 0, seed: 0, computeType, deterministic: true,
  });
}

function matrixPlan(kernel: KernelName, capabilities: Capabilities, headSize = 64): Plan {
  return makePlan(kernel, problem({headSize}), capabilities, {}, 1, 'matrix');
}

describe('plans over subgroup matrices', () => {
  it('are for those who allow f16, on devices that have them, where there is enough to do', () => {
    const kind = (shape: Shape, capabilities = H100, kernel: KernelName = 'forward') =>
        choosePlan(kernel, problem(shape), capabilities);
    expect(kind({})).toBe('matrix');
    expect(kind({computeType: 'bfloat16'})).toBe('matrix');
    expect(kind({}, H100, 'backward_dq')).toBe('matrix');
    expect(kind({}, H100, 'backward_dkv')).toBe('matrix');
    expect(kind({}, H100, 'backward_dbias')).toBe('simt');
    expect(kind({computeType: 'float32'})).toBe('subgroup');
    expect(kind({computeType: 'tensorfloat32'})).toBe('subgroup');
    expect(kind({queryLength: 64, keyLength: 64})).toBe('subgroup');
    expect(kind({queryLength: 1, keyLength: 2 ** 20})).toBe('decode');
    expect(kind({}, stockCapabilities(LIMITS))).toBe('simt');
    expect(kind({}, {...H100, subgroups: {min: 16, max: 32}})).toBe('subgroup');
    expect(kind({}, {...H100, limits: {...LIMITS, maxStorageBuffersPerShaderStage: 10}})).toBe('subgroup');
    expect(kind({batch: 4096, keyLength: 2048})).toBe('subgroup');
  });

  it('say what stands in their way', () => {
    expect(obstacle('forward', 'matrix', problem({computeType: 'float32'}), H100)).toContain('computeType float32');
    expect(obstacle('forward', 'matrix', problem(), stockCapabilities(LIMITS))).toContain('no subgroup matrices');
    expect(obstacle('merge_splits', 'matrix', problem(), H100)).toContain('no merge_splits of that kind');
    const tiny = {...H100, limits: {...LIMITS, maxComputeWorkgroupStorageSize: 4096}};
    expect(obstacle('forward', 'matrix', problem(), tiny)).toContain('workgroup memory');
    expect(obstacle('forward', 'matrix', problem({batch: 4096, keyLength: 2048}), H100)).toContain('takes');
  });

  it('take the largest product whose rows come out even with the lanes', () => {
    expect(matrixShape(H100)).toEqual({M: 16, N: 16, K: 16});
    expect(matrixShape(LAVAPIPE)).toEqual({M: 8, N: 8, K: 8});
    expect(matrixShape({...H100, matrix: [{M: 16, N: 8, K: 8}]})).toEqual({M: 16, N: 8, K: 8});
    expect(matrixShape({...H100, subgroups: {min: 8, max: 8}})).toBeUndefined();
    expect(matrixShape({...H100, matrix: []})).toBeUndefined();
  });

  it('fit the workgroup memory, which is counted as the shader declares it', () => {
    for (const capabilities of [H100, LAVAPIPE]) {
      for (const kernel of ['forward', 'backward_dq', 'backward_dkv'] as const) {
        for (const headSize of [8, 64, 72, 128, 256]) {
          const plan = matrixPlan(kernel, capabilities, headSize);
          expect(workgroupBytes(plan)).toBeLessThanOrEqual(capabilities.limits.maxComputeWorkgroupStorageSize);
          const declared = [...specialise(plan).matchAll(/var<workgroup> (\w+)/g)].map(([, name]) => name);
          expect(workgroupMemory(plan).map(({name}) => name).sort()).toEqual(declared.sort());
        }
      }
    }
    const {blockRows, headStride, sumsLength} = deriveMatrix(matrixPlan('forward', H100) as Required<Plan>);
    expect([blockRows, headStride, sumsLength]).toEqual([32, 18, 8 * 16 * 10]);
  });

  it('have loops written out on a GPU only', () => {
    const loops = (plan: Plan) => (specialise(plan).match(/for \(var o = 0u/g) ?? []).length;
    expect(loops(matrixPlan('forward', H100))).toBe(0);
    expect(loops(matrixPlan('forward', LAVAPIPE))).toBeGreaterThan(0);
    expect(loops(matrixPlan('backward_dkv', H100, 256))).toBe(0);
    const smallest = {...H100, matrix: [{M: 16, N: 8, K: 8}]}; // 128 matrices in dK and dV: wrong on NVIDIA
    expect(loops(matrixPlan('backward_dkv', smallest, 256))).toBeGreaterThan(0);
    expect(loops(matrixPlan('backward_dkv', smallest, 128))).toBe(0);
    expect(header(matrixPlan('forward', H100))).toContain('const MATRIX = true;');
    const first = specialise(matrixPlan('forward', H100)).split('\n')[0];
    expect(first).toBe('enable f16, subgroups, chromium_experimental_subgroup_matrix;');
  });

  it('split keys into whole tiles of their own and of what stands in for them', () => {
    const long = problem({queryLength: 32, keyLength: 2 ** 16});
    const {splits, keys} = makeSplit(makePlan('forward', long, H100, {}, 1, 'matrix'), long);
    expect(splits).toBeGreaterThan(1);
    expect(keys % 256).toBe(0);
    expect(splits * keys).toBeGreaterThanOrEqual(2 ** 16);
  });

  it('read copies in f16 with rows to spare, which one dispatch makes', () => {
    const of = problem({headSize: 72});
    const {M, N, K} = matrixShape(H100)!;
    expect(halfShape(of, {M, N, K}, 'q')).toEqual([1, 8, 640, 40]);
    const plan = makePlan('to_half', of, H100, {hasDOutput: false});
    const window = {batches: 1, heads: 8, queries: 512, keys: 512};
    // Three tensors of 8·640 rows of 10 vec4s, 1024 of them a workgroup.
    expect(workgroupCount(plan, of, window, 1)).toBe(3 * 50);
    expect(workgroupCount({...plan, hasDOutput: true}, of, window, 1)).toBe(4 * 50);
  });
});
