import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities, DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {choosePlan, explainChoice, obstacle} from '../../src/backends/webgpu/choose.js';
import type {KernelName} from '../../src/backends/webgpu/kernel_names.js';
import {deriveMatrix, halfShape, isWrittenOut, matrixShape} from '../../src/backends/webgpu/matrix_plan.js';
import {makePlan, workgroupBytes, workgroupMemory} from '../../src/backends/webgpu/plan.js';
import type {Features, Plan} from '../../src/backends/webgpu/plan.js';
import {header, specialise} from '../../src/backends/webgpu/specialise.js';
import {makeSplit} from '../../src/backends/webgpu/splits.js';
import {LARGEST_WORDS, workgroupCount} from '../../src/backends/webgpu/workgroups.js';
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

function splitPlan(capabilities: Capabilities, headSize: number, kernel: KernelName = 'forward'): Plan {
  return makePlan(kernel, problem({headSize, computeType: 'float32'}), capabilities, {}, 1, 'matrix_split');
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
    const inFull = {computeType: 'float32', keyLength: 1024} as const;
    expect(kind(inFull)).toBe('matrix_split');
    expect(kind({...inFull, computeType: 'tensorfloat32'})).toBe('matrix_split');
    expect(kind({...inFull, headSize: 192})).toBe('matrix_split');
    expect(kind({...inFull, headSize: 193})).toBe('subgroup');
    expect(kind({...inFull, keyLength: 512})).toBe('subgroup');
    expect(kind(inFull, H100, 'backward_dq')).toBe('matrix_split');
    expect(kind(inFull, H100, 'backward_dkv')).toBe('matrix_split');
    expect(kind(inFull, H100, 'backward_dbias')).toBe('simt');
    expect(explainChoice('forward', problem(inFull), H100, true).kind).toBe('matrix_split');
    const biased: Problem = {...problem(inFull), biasShape: [1, 1, 512, 1024]};
    expect(explainChoice('forward', biased, H100, true).kind).toBe('matrix_split');
    expect(choosePlan('backward_dq', biased, H100)).toBe('matrix_split');
    expect(choosePlan('backward_dbias', biased, H100)).toBe('simt');
    expect(kind({queryLength: 64, keyLength: 64})).toBe('subgroup');
    expect(kind({queryLength: 1, keyLength: 2 ** 20})).toBe('decode');
    expect(kind({}, stockCapabilities(LIMITS))).toBe('simt');
    expect(kind({}, {...H100, subgroups: {min: 16, max: 32}})).toBe('subgroup');
    expect(kind({}, {...H100, limits: {...LIMITS, maxStorageBuffersPerShaderStage: 10}})).toBe('subgroup');
    expect(kind({batch: 4096, keyLength: 2048})).toBe('subgroup');
  });

  it('are for gradients only where the backward kernels have them too', () => {
    const little = {...H100, limits: {...LIMITS, maxComputeWorkgroupStorageSize: 16384}};
    const large = problem({headSize: 208});
    expect(obstacle('forward', 'matrix', large, little)).toBeUndefined();
    expect(obstacle('backward_dq', 'matrix', large, little)).toContain('workgroup memory');
    expect(explainChoice('forward', large, little).kind).toBe('matrix');
    expect(explainChoice('forward', large, little, true).kind).toBe('subgroup');
    expect(choosePlan('backward_dkv', large, little)).toBe('simt');
    const split = problem({headSize: 48, queryLength: 1024, keyLength: 1024, computeType: 'float32'});
    const less = {...H100, limits: {...LIMITS, maxComputeWorkgroupStorageSize: 9000}};
    expect(obstacle('backward_dq', 'matrix_split', split, less)).toContain('workgroup memory');
    expect(explainChoice('forward', split, less, true).kind).toBe('subgroup');
    expect(choosePlan('backward_dkv', split, less)).toBe('simt');
  });

  it('say what stands in their way', () => {
    expect(obstacle('forward', 'matrix', problem({computeType: 'float32'}), H100)).toContain('computeType float32');
    expect(obstacle('forward', 'matrix', problem(), stockCapabilities(LIMITS))).toContain('no subgroup matrices');
    expect(obstacle('merge_splits', 'matrix', problem(), H100)).toContain('no merge_splits of that kind');
    const tiny = {...H100, limits: {...LIMITS, maxComputeWorkgroupStorageSize: 4096}};
    expect(obstacle('forward', 'matrix', problem(), tiny)).toContain('workgroup memory');
    expect(obstacle('forward', 'matrix', problem({batch: 4096, keyLength: 2048}), H100)).toContain('takes');
  });

  it('of split operands are for float32 and tensorfloat32', () => {
    const why = (kernel: KernelName, computeType: Problem['computeType'], capabilities = H100) =>
        obstacle(kernel, 'matrix_split', problem({computeType}), capabilities);
    expect(why('forward', 'float32')).toBeUndefined();
    expect(why('forward', 'tensorfloat32')).toBeUndefined();
    expect(why('forward', 'float32', LAVAPIPE)).toBeUndefined();
    expect(why('forward', 'float16')).toContain('does not ask for more than f16');
    expect(why('forward', 'bfloat16')).toContain('does not ask for more than f16');
    expect(why('backward_dq', 'float32')).toBeUndefined();
    expect(why('backward_dkv', 'tensorfloat32', LAVAPIPE)).toBeUndefined();
    expect(why('backward_dbias', 'float32')).toContain('no backward_dbias of that kind');
    const eights = {...H100, matrix: [{M: 16, N: 8, K: 8}]};
    expect(why('forward', 'float32', eights)).toBeUndefined();
    expect(why('backward_dq', 'float32', eights)).toContain('truncated');
    expect(obstacle('backward_dq', 'matrix', problem(), eights)).toBeUndefined();
    const large = problem({keyLength: 1024, computeType: 'float32'});
    expect(explainChoice('forward', large, eights).kind).toBe('matrix_split');
    expect(explainChoice('forward', large, eights, true).kind).toBe('subgroup');
    expect(why('forward', 'float32', stockCapabilities(LIMITS))).toContain('no subgroup matrices');
    const long = problem({batch: 512, keyLength: 2048, computeType: 'float32'}); // 2^30 bytes as one f16
    expect(obstacle('forward', 'matrix_split', long, H100)).toContain('takes');
    expect(obstacle('forward', 'matrix', {...long, computeType: 'float16'}, H100)).toBeUndefined();
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
    // Four strips of 16 rows of 32 + 8 floats; 64 + 8 halves.
    expect(deriveMatrix(matrixPlan('forward', H100) as Required<Plan>)).toEqual(jasmine.objectContaining(
        {
          blockRows: 32, stripSubgroups: 1, headStride: 18, sumsLength: 4 * 16 * 10, lanesPerRow: 2, rowRounds: 1,
          tileColumns: 2,
        }));
    // Two pairs of subgroups with two strips of 16 rows each, all of them for both products.
    const dq = matrixPlan('backward_dq', H100, 64);
    expect(deriveMatrix({...dq, matrix: {...dq.matrix!, subgroups: 4, blockRows: 16, strips: 2}})).toEqual(
        jasmine.objectContaining({
          blockQueries: 64, steps: 4, columns: 2, pairsAt: 2 * 2 * 2 * 16 * 6,
          sumsLength: 2 * 2 * 2 * 16 * 6 + 2 * 2 * 16 * 3, // behind the products dS, in rows of 16 + 8 halves
        }));
  });

  it('have the tiles that were the fastest on GPUs, and smaller ones where memory is short', () => {
    // Subgroups x rows of a tile x strips x subgroups that share them.
    const tile = (
        kernel: KernelName, headSize: number, bytes = H100.limits.maxComputeWorkgroupStorageSize,
        kind: 'matrix'|'matrix_split' = 'matrix') => {
      const capabilities = {...H100, limits: {...H100.limits, maxComputeWorkgroupStorageSize: bytes}};
      const many = problem({batch: 16, queryLength: 1024, keyLength: 1024, headSize});
      const {subgroups, blockRows, strips, stripSubgroups, parts} =
          makePlan(kernel, many, capabilities, {}, 16, kind).matrix!;
      return `${subgroups}x${blockRows}x${strips}x${Math.max(stripSubgroups, parts)}`;
    };
    const sizes = [32, 64, 72, 96, 128, 192, 256];
    expect(sizes.map(headSize => tile('forward', headSize))).toEqual(
        ['4x32x1x1', '4x16x2x1', '8x32x1x1', '8x32x1x1', '8x32x1x1', '4x16x1x1', '8x16x1x1']);
    expect(sizes.map(headSize => tile('backward_dq', headSize))).toEqual(
        ['4x16x2x1', '4x16x2x1', '4x16x2x1', '4x16x2x1', '4x16x2x1', '4x16x2x1', '8x16x1x1']);
    expect(sizes.map(headSize => tile('backward_dkv', headSize))).toEqual(
        ['4x16x2x1', '4x16x2x1', '4x16x2x1', '4x16x2x1', '8x32x2x2', '8x16x1x1', '8x32x1x2']);
    expect(tile('forward', 128, 16384)).toBe('2x16x1x1');
    expect(tile('backward_dq', 128, 16384)).toBe('4x16x1x1');
    expect(tile('backward_dkv', 128, 16384)).toBe('2x16x1x1');
    const split = (kernel: KernelName, bytes?: number) =>
        sizes.map(headSize => tile(kernel, headSize, bytes, 'matrix_split'));
    expect(split('backward_dq')).toEqual(
        ['4x16x2x1', '4x16x2x1', '8x16x2x1', '8x16x2x1', '4x16x1x1', '8x16x1x1', '8x16x1x1']);
    expect(split('backward_dkv')).toEqual(
        ['4x16x2x1', '8x32x2x2', '8x32x2x2', '8x32x2x2', '8x32x1x2', '8x16x1x1', '8x16x1x1']);
    expect(tile('backward_dq', 64, 16384, 'matrix_split')).toBe('4x16x1x1');
    expect(tile('backward_dkv', 64, 16384, 'matrix_split')).toBe('4x16x1x1');
  });

  it('come out even with lanes, subgroups and matrices on every device', () => {
    const devices = [
      H100, LAVAPIPE, {...H100, matrix: [{M: 16, N: 8, K: 8}]}, {...H100, matrix: [{M: 16, N: 8, K: 16}]},
      {...H100, subgroups: {min: 64, max: 64}, matrix: [{M: 16, N: 16, K: 16}]},
      {...H100, subgroups: {min: 16, max: 16}, matrix: [{M: 8, N: 16, K: 16}]},
    ];
    for (const capabilities of devices) {
      for (const kernel of ['forward', 'backward_dq', 'backward_dkv'] as const) {
        for (const headSize of [8, 40, 64, 96, 128, 176, 256]) {
          for (const length of [64, 1024, 4096]) {
            for (const windowRight of [-1, 0]) {
              const of = {...problem({queryLength: length, keyLength: length, headSize}), windowRight};
              for (const kind of ['matrix', 'matrix_split'] as const) {
                if (kind === 'matrix_split' && obstacle(kernel, kind, {...of, computeType: 'float32'}, capabilities)) {
                  continue;
                }
                const plan = makePlan(kernel, of, capabilities, {}, 1, kind);
                const fractions = Object.entries(deriveMatrix(plan as Required<Plan>))
                    .filter(([, value]) => typeof value === 'number' && !(Number.isInteger(value) && value >= 0));
                expect(fractions).toEqual([]);
              }
            }
          }
        }
      }
    }
  });

  it('of split operands fit it too, with twice the operands and weights', () => {
    for (const capabilities of [H100, LAVAPIPE]) {
      for (const kernel of ['forward', 'backward_dq', 'backward_dkv'] as const) {
        for (const headSize of capabilities === H100 ? [8, 64, 72, 128, 256] : [8, 64, 72, 128]) {
          const plan = splitPlan(capabilities, headSize, kernel);
          expect(workgroupBytes(plan)).toBeLessThanOrEqual(capabilities.limits.maxComputeWorkgroupStorageSize);
          const declared = [...specialise(plan).matchAll(/var<workgroup> (\w+)/g)].map(([, name]) => name);
          expect(workgroupMemory(plan).map(({name}) => name).sort()).toEqual(declared.sort());
        }
      }
    }
    expect(obstacle('forward', 'matrix_split', problem({headSize: 256, computeType: 'float32'}), LAVAPIPE))
        .toContain('no blocking for head sizes 256');
    const sizes = (headSize: number) => workgroupMemory(splitPlan(H100, headSize)).map(({bytes}) => bytes);
    // 16 rows of 2·64 + 8 halves; 4 strips of 16 rows of 16 + 8 floats; of 2·16 + 8 halves.
    expect(sizes(64)).toEqual([2 * 16 * 136, 2 * 16 * 136, 4 * 4 * 16 * 24, 2 * 4 * 16 * 40, 16]);
    // 32 rows of 2·128 + 8 halves; 3 strips, of two subgroups each, of 16 rows of 32 + 8 floats; of 2·32 + 8 halves.
    expect(sizes(128)).toEqual([2 * 32 * 264, 2 * 32 * 264, 4 * 3 * 16 * 40, 2 * 3 * 16 * 72, 16]);
    // Two tiles of 32 rows of 2·128 + 8 halves; of two sides, and two groups of two parts, 32 rows of 16 + 4 floats.
    expect(workgroupMemory(splitPlan(H100, 128, 'backward_dkv')).map(({bytes}) => bytes))
        .toEqual([2 * 2 * 32 * 264, 4 * 2 * 2 * 32 * 20]);
  });

  it('of split operands flush whole columns, and keep what registers hold', () => {
    const small = deriveMatrix(splitPlan(H100, 64) as Required<Plan>);
    expect(small).toEqual(jasmine.objectContaining({
      operandParts: 2, headRest: 8, valueRest: 8, stripSubgroups: 1, partColumns: 4, columnsAtOnce: 1, flushTiles: 2,
      blockQueries: 64, outputVec4: 8,
    }));
    const large = deriveMatrix(splitPlan(H100, 128) as Required<Plan>);
    expect(large).toEqual(jasmine.objectContaining({
      headRest: 16, stripSubgroups: 2, partColumns: 4, columnsAtOnce: 1, flushTiles: 1, blockQueries: 48, outputVec4: 8,
    }));
    expect(deriveMatrix(splitPlan(H100, 48) as Required<Plan>)).toEqual(jasmine.objectContaining({columnsAtOnce: 1}));
    for (const kernel of ['forward', 'backward_dq', 'backward_dkv'] as const) {
      const text = specialise(splitPlan(H100, 128, kernel));
      expect(text).toContain('const SPLIT_OPERANDS = true;');
      expect(text.match(/for \(var [cdnor] = 0u/g)).toBeNull(); // arrays that loops index do not lie in registers
    }
    expect(header(matrixPlan('forward', H100))).toContain('const SPLIT_OPERANDS = false;');
  });

  it('have loops written out on a GPU only', () => {
    const loops = (plan: Plan) => (specialise(plan).match(/for \(var o = 0u/g) ?? []).length;
    expect(loops(matrixPlan('forward', H100))).toBe(0);
    expect(loops(matrixPlan('forward', LAVAPIPE))).toBeGreaterThan(0);
    expect(loops(matrixPlan('backward_dkv', H100, 256))).toBe(0);
    // 128 matrices, which NVIDIA's compiler makes wrong, and 48.
    const most = matrixPlan('backward_dkv', {...H100, matrix: [{M: 16, N: 8, K: 8}]}, 256) as Required<Plan>;
    expect(isWrittenOut({...most, matrix: {...most.matrix, parts: 1, strips: 2}}, H100)).toBeFalse();
    expect(isWrittenOut(most, H100)).toBeTrue();
    expect(loops(most)).toBe(0);
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

  it('split keys only where there are fewer workgroups than multiprocessors', () => {
    const parts = (queryHeads: number, length: number, windowRight = -1) => {
      const of = {
        ...problem({queryLength: length, keyLength: length}), queryHeads, keyHeads: queryHeads, windowRight,
      };
      return makeSplit(makePlan('forward', of, H100, {}, 1, 'matrix'), of).splits;
    };
    expect([16, 8, 4, 2, 1].map(heads => parts(heads, 1024))).toEqual([1, 1, 2, 2, 2]);
    expect([16, 8, 4, 2, 1].map(heads => parts(heads, 1024, 0))).toEqual([1, 1, 2, 2, 2]);
    expect([2, 1].map(heads => parts(heads, 4096))).toEqual([1, 4]);
  });

  it('find all rows of their last tile', () => {
    for (const headSize of [64, 128]) {
      for (const kind of ['matrix', 'matrix_split'] as const) {
        for (const queryLength of [1, 48, 97, 127, 128, 129, 500]) {
          const of = problem({headSize, queryLength, computeType: kind === 'matrix' ? 'float16' : 'float32'});
          const plan = makePlan('forward', of, H100, {}, 1, kind) as Required<Plan>;
          const {blockQueries} = deriveMatrix(plan);
          expect(halfShape(of, plan.matrix, 'q', kind === 'matrix_split')[2])
              .toBeGreaterThanOrEqual(Math.ceil(queryLength / blockQueries) * blockQueries);
        }
      }
    }
  });

  it('have longer tiles for few rows, where the longest decides', () => {
    const shape = (of: Problem, kernel: KernelName = 'backward_dq') => {
      const {subgroups, blockRows} = makePlan(kernel, of, H100, {}, 1, 'matrix').matrix!;
      return [subgroups, blockRows];
    };
    const causal = {...problem({queryLength: 1024, keyLength: 1024}), windowRight: 0};
    const large = {...causal, headSize: 128, valueSize: 128};
    expect(shape(causal)).toEqual([4, 32]);
    expect(shape(causal, 'backward_dkv')).toEqual([4, 32]);
    expect(shape(causal, 'forward')).toEqual([4, 32]);
    expect(shape(large, 'forward')).toEqual([4, 32]);
    expect(shape({...problem(), queryHeads: 16, queryLength: 1024})).toEqual([4, 16]);
    expect(shape({...problem(), queryHeads: 16, queryLength: 1024}, 'forward')).toEqual([8, 32]);
    expect(shape({...causal, batch: 16})).toEqual([4, 16]);
    expect(shape({...causal, batch: 16}, 'forward')).toEqual([4, 16]);
    expect(shape({...large, batch: 16}, 'forward')).toEqual([8, 32]);
    const strips = (heads: number, windowRight: number, kind: 'matrix'|'matrix_split') => {
      const of = {...causal, windowRight, queryHeads: heads, keyHeads: heads};
      return makePlan('backward_dq', of, H100, {}, 1, kind).matrix!.strips;
    };
    for (const kind of ['matrix', 'matrix_split'] as const) {
      expect([16, 8, 4].map(heads => strips(heads, 0, kind))).toEqual([2, 1, 1]);
      expect([16, 8, 4].map(heads => strips(heads, -1, kind))).toEqual([2, 2, 1]);
    }
    // Those of simt share a multiprocessor's arithmetic instead: they take turns, long and short.
    const round = (of: Problem, kernel: KernelName) => makePlan(kernel, of, H100, {}, 1, 'simt').round;
    expect(round(causal, 'backward_dq')).toBe(128);
    expect(round(causal, 'backward_dkv')).toBe(128);
    expect(round(causal, 'forward')).toBe(0);
    expect(round({...causal, batch: 16}, 'backward_dq')).toBe(0);
    expect(round(problem(), 'backward_dq')).toBe(0);
  });

  it('watch every tile of what is made again, and of nothing else, whatever hides keys', () => {
    const text = (features: Partial<Features>, of: Problem) =>
      specialise(makePlan('forward', of, H100, features, 1, 'matrix'));
    const isWatched = (wgsl: string) => wgsl.includes('fn watch(');
    const many = problem({batch: 16});
    for (const of of [
      many, {...many, maskShape: [1, 1, 512, 512]}, {...many, biasShape: [1, 1, 512, 512]},
    ] as Problem[]) {
      expect(isWatched(text({}, of))).toBeFalse();
      expect(isWatched(text({again: true}, of))).toBeTrue();
    }
    // What is made again comes from the tensors themselves, pages of a cache too.
    const paged: Problem = {...many, cache: true, pageSize: 16};
    expect(text({}, paged)).not.toContain('block_table');
    expect(text({again: true}, paged)).toContain('block_table');
    const window = {batches: 1, heads: 8, queries: 2 ** 15, keys: 512};
    const again = makePlan('forward', problem({}), H100, {again: true}, 1, 'matrix');
    expect(workgroupCount({...again, again: false}, problem({}), window, 1)).toBe(8 * 512);
    expect(workgroupCount(again, problem({}), window, 1)).toBe(1024);
  });

  it('make again by themselves what they could not where a call is short and the device binds enough buffers', () => {
    const itself = (changes: object, buffers = 16, kind: 'matrix'|'matrix_split' = 'matrix') => {
      const limits = {...H100.limits, maxStorageBuffersPerShaderStage: buffers};
      const of = problem(kind === 'matrix' ? changes : {...changes, computeType: 'float32'});
      const plan = makePlan('forward', of, {...H100, limits}, {}, of.batch, kind);
      expect(/fn watch\([^]*fn main\(/.test(specialise(plan))).toBe(plan.watchesItself);
      return plan.watchesItself;
    };
    expect(itself({})).toBeTrue();
    expect(itself({batch: 4})).toBeTrue(); // 2^14 rows
    expect(itself({batch: 5})).toBeFalse();
    expect(itself({keyLength: 2048})).toBeTrue();
    expect(itself({keyLength: 2056})).toBeFalse();
    expect(itself({keyLength: 1024, headSize: 128})).toBeTrue();
    expect(itself({keyLength: 1025, headSize: 128})).toBeFalse();
    expect(itself({headSize: 136})).toBeFalse();
    expect(itself({}, 13)).toBeTrue();
    expect(itself({}, 12)).toBeFalse();
    expect(itself({}, 16, 'matrix_split')).toBeFalse();
    expect(makePlan('forward', problem(), H100, {again: true}, 1, 'matrix').watchesItself).toBeFalse();
    expect(makePlan('backward_dq', problem(), H100, {}, 1, 'matrix').watchesItself).toBeFalse();
    const pages = makePlan('forward', {...problem(), cache: true, pageSize: 16} as Problem, H100, {}, 1, 'matrix');
    expect(specialise(pages)).toContain('block_table'); // of the second attempt
  });

  // Vulkan wants a subgroup matrix at a multiple of 16 bytes; a lone word before it shifts all that follows.
  it('keep whole 16 bytes for every variable in workgroup memory', () => {
    const masked: Problem = {...problem(), maskShape: [1, 1, 512, 512]};
    for (const of of [problem(), masked]) {
      for (const kernel of ['forward', 'backward_dq', 'backward_dkv'] as const) {
        for (const again of kernel === 'forward' ? [false, true] : [false]) {
          const plan = makePlan(kernel, of, H100, {again}, 1, 'matrix');
          expect(workgroupMemory(plan).map(({bytes}) => bytes % 16).every(rest => rest === 0)).toBeTrue();
          const types = [...specialise(plan).matchAll(/var<workgroup> \w+: ([^;]+);/g)].map(([, type]) => type);
          expect(types.filter(type => /^(atomic<)?[uif]32>?$/.test(type))).toEqual([]);
        }
      }
    }
  });

  it('read copies in f16 of whole tiles of rows, which one dispatch makes', () => {
    const of = problem({headSize: 72});
    const {M, N, K} = matrixShape(H100)!;
    expect(halfShape(of, {M, N, K}, 'q')).toEqual([1, 8, 512, 40]);
    expect(halfShape(problem({headSize: 72, queryLength: 513}), {M, N, K}, 'q')[2]).toBe(640);
    const plan = makePlan('to_half', of, H100, {hasDOutput: false});
    const window = {batches: 1, heads: 8, queries: 512, keys: 512};
    // Three tensors of 8·512 rows, 128 of them a workgroup.
    expect(workgroupCount(plan, of, window, 1)).toBe(3 * 32);
    expect(workgroupCount({...plan, hasDOutput: true}, of, window, 1)).toBe(4 * 32);
    // Split, a row is followed by its rests; a thread makes both. There are rows for tiles of 48.
    expect(halfShape(of, {M, N, K}, 'q', true)).toEqual([1, 8, 640, 80]);
    const split = makePlan('to_half', of, H100, {hasDOutput: false, splitOperands: true});
    expect(workgroupCount(split, of, window, 1)).toBe(3 * 40);
    // At most so many as leave what they saw in `largest`. The second time a few look whether there is anything to do.
    const large = problem({headSize: 64, queryLength: 2 ** 18, keyLength: 2 ** 18});
    const again = makePlan('to_half', large, H100, {hasDOutput: false, again: true});
    const all = {batches: 1, heads: 8, queries: 2 ** 18, keys: 2 ** 18};
    const most = (LARGEST_WORDS - 8) / 6;
    expect(specialise(plan)).toContain(`const TURNING_WORKGROUPS = ${most}u;`);
    expect(workgroupCount({...again, again: false}, large, all, 1)).toBe(most);
    expect(workgroupCount(again, large, all, 1)).toBe(512);
  });
});
