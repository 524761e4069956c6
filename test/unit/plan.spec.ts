import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities, DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {decodeSizes} from '../../src/backends/webgpu/decode_plan.js';
import type {KernelName} from '../../src/backends/webgpu/kernel_names.js';
import {maskBitsShape} from '../../src/backends/webgpu/mask_bits.js';
import {
  chunkOf, derive, makePlan as makePlanOn, planKey, tableWords, workgroupBytes, workgroupMemory,
} from '../../src/backends/webgpu/plan.js';
import type {Plan} from '../../src/backends/webgpu/plan.js';
import {header, specialise} from '../../src/backends/webgpu/specialise.js';
import {makeSplit} from '../../src/backends/webgpu/splits.js';
import {wholeWindow} from '../../src/backends/webgpu/windows.js';
import {grid, workgroupCount} from '../../src/backends/webgpu/workgroups.js';
import {makeProblem} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

/** What WebGPU guarantees on every device. */
const GUARANTEED: DeviceLimits = {
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupsPerDimension: 65535,
  maxStorageBufferBindingSize: 128 * 2 ** 20,
  maxBufferSize: 256 * 2 ** 20,
  minStorageBufferOffsetAlignment: 256,
  maxStorageBuffersPerShaderStage: 8,
  maxUniformBufferBindingSize: 65536,
};
const LARGE: DeviceLimits =
    {...GUARANTEED, maxComputeWorkgroupStorageSize: 49152, maxComputeInvocationsPerWorkgroup: 1024};
const COMPATIBILITY: DeviceLimits =
    {...GUARANTEED, maxComputeInvocationsPerWorkgroup: 128, maxComputeWorkgroupSizeX: 128};

function problem(headSize: number, valueSize = headSize, more: Partial<Problem> = {}): Problem {
  return {
    ...makeProblem({
      q: {shape: [1, 8, 2, headSize]}, k: {shape: [1, 8, 2, headSize]}, v: {shape: [1, 8, 2, valueSize]},
    }, {
      layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
      dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
    }),
    ...more,
  };
}

/** The plan on a stock device with these limits. */
const makePlan = (kernel: KernelName, of: Problem, limits: DeviceLimits, features = {}): Plan =>
    makePlanOn(kernel, of, stockCapabilities(limits), features);

const KERNELS: KernelName[] = ['forward', 'backward_dq', 'backward_dkv', 'backward_dbias'];

describe('the plan', () => {
  // [kernel, D, limits] → threadsX × threadsY, rows, chunk, rowChunk, bytes of workgroup memory
  const table: Array<[KernelName, number, DeviceLimits, string]> = [
    ['forward', 64, LARGE, '16x16 rows 4 chunk 4 rowChunk 16 bytes 21776'],
    ['forward', 128, LARGE, '8x16 rows 4 chunk 4 rowChunk 8 bytes 13328'],
    ['forward', 256, LARGE, '16x16 rows 4 chunk 4 rowChunk 4 bytes 21776'],
    ['forward', 64, GUARANTEED, '16x8 rows 4 chunk 4 rowChunk 16 bytes 13072'],
    ['forward', 256, GUARANTEED, '16x8 rows 4 chunk 4 rowChunk 4 bytes 13072'],
    ['forward', 256, COMPATIBILITY, '16x8 rows 4 chunk 4 rowChunk 4 bytes 13072'],
    ['forward', 128, COMPATIBILITY, '8x16 rows 4 chunk 4 rowChunk 8 bytes 13328'],
    ['forward', 40, LARGE, '16x16 rows 4 chunk 4 rowChunk 16 bytes 21776'],
    ['forward', 1, LARGE, '16x16 rows 4 chunk 1 rowChunk 16 bytes 21520'],
    ['backward_dq', 64, LARGE, '16x16 rows 4 chunk 4 rowChunk 16 bytes 21776'],
    ['backward_dq', 256, GUARANTEED, '16x16 rows 2 chunk 4 rowChunk 4 bytes 13072'],
    ['backward_dkv', 64, LARGE, '16x16 rows 4 chunk 4 rowChunk 16 bytes 21776'],
    ['backward_dkv', 128, LARGE, '16x16 rows 4 chunk 4 rowChunk 8 bytes 21776'],
    ['backward_dkv', 256, GUARANTEED, '16x16 rows 2 chunk 4 rowChunk 4 bytes 13072'],
    ['backward_dkv', 256, COMPATIBILITY, '16x8 rows 2 chunk 4 rowChunk 4 bytes 8720'],
  ];
  for (const [kernel, size, limits, expected] of table) {
    it(`for ${kernel}, D=${size}, ${limits.maxComputeWorkgroupStorageSize} bytes, ` +
       `${limits.maxComputeInvocationsPerWorkgroup} threads`, () => {
      const p = makePlan(kernel, problem(size), limits);
      expect(`${p.threadsX}x${p.threadsY} rows ${p.rows} chunk ${p.chunk} rowChunk ${p.rowChunk} ` +
             `bytes ${workgroupBytes(p)}`).toBe(expected);
    });
  }

  it('exists within the guaranteed limits for every pair of head sizes', () => {
    for (const limits of [GUARANTEED, COMPATIBILITY, LARGE]) {
      for (let size = 1; size <= 256; size += size < 20 ? 1 : 17) {
        for (const valueSize of [1, size, 256]) {
          for (const kernel of KERNELS) {
            const plan = makePlan(kernel, problem(size, valueSize), limits);
            const derived = derive(plan);
            const {threads, columns, keyGroups, headVec4, valueVec4, rightWidth, rightLength, leftLength} = derived;
            expect(workgroupBytes(plan)).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
            expect(threads).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
            expect(columns * plan.threadsX).toBeGreaterThanOrEqual(Math.max(headVec4, valueVec4));
            // What the kernels count on: whole key groups, whole steps, tiles that hold what is put into them.
            expect(Number.isInteger(keyGroups)).toBeTrue();
            expect((4 * plan.threadsX) % plan.rowChunk).toBe(0);
            expect(derived.blockQueries % plan.rowChunk).toBe(0);
            expect(plan.rowChunk % 4).toBe(0);
            expect(rightLength).toBeGreaterThanOrEqual(plan.rowChunk * rightWidth);
            if (kernel === 'forward') {
              expect(plan.rows % 4).toBe(0);
              expect(leftLength).toBeGreaterThanOrEqual(plan.rows / 4 * threads);
            }
          }
        }
      }
    }
  });

  it('counts workgroup memory term by term', () => {
    // left: 64 queries × 17 vec4s; right: 16 elements × 17 vec4s; the flag.
    const terms = [
      {name: 'left', bytes: 64 * 17 * 16}, {name: 'right', bytes: 16 * 17 * 16}, {name: 'right_not_finite', bytes: 16},
    ];
    expect(workgroupMemory(makePlan('forward', problem(64), LARGE))).toEqual(terms);
    expect(workgroupMemory(makePlan('row_statistics', problem(64), LARGE))).toEqual([]);
  });

  it('reads vec4s only where both head sizes are multiples of 4', () => {
    expect(makePlan('forward', problem(64, 32), LARGE).vectorised).toBeTrue();
    expect(makePlan('forward', problem(64, 30), LARGE).vectorised).toBeFalse();
    expect(makePlan('forward', problem(63, 32), LARGE).vectorised).toBeFalse();
  });

  it('reads biases four keys at a time only where rows are fours of keys', () => {
    const plan = (keyLength: number, keys = keyLength) =>
        makePlan('forward', problem(64, 64, {keyLength, biasShape: [1, 2, 3, keys]}), LARGE);
    expect(plan(8).biasVec4).toBeTrue();
    expect(plan(9).biasVec4).toBeFalse();
    expect(plan(8, 1).biasVec4).toBeFalse();
    expect(specialise(plan(8))).toContain('bias: array<vec4f>');
    expect(specialise(plan(9))).toContain('bias: array<f32>');
    expect(makePlan('forward', problem(64, 64), LARGE).biasVec4).toBeFalse();
  });

  it('packs a mask by words of 32 keys and 64 rows', () => {
    const masked = problem(64, 64, {queryLength: 65, keyLength: 70, maskShape: [2, 1, 65, 70]});
    const window = wholeWindow('pack_mask', masked);
    expect(maskBitsShape(masked.maskShape!)).toEqual([2, 1, 65 + 2, 3]);
    expect(maskBitsShape([2, 3, 1, 1])).toEqual([2, 3, 2, 1]);
    expect(window).toEqual(jasmine.objectContaining({batches: 2, heads: 1, queries: 65, keys: 70}));
    const plan = makePlan('pack_mask', masked, LARGE);
    expect(workgroupCount(plan, masked, window, 1)).toBe(2 * 2 * 3);
    expect(workgroupMemory(plan)).toEqual([{name: 'fours', bytes: 2048}, {name: 'found', bytes: 16}]);
  });

  it('refuses a device below the guaranteed limits, naming them', () => {
    expect(() => makePlan('forward', problem(256), {...GUARANTEED, maxComputeWorkgroupStorageSize: 4096}))
        .toThrowError(/no forward kernel for head sizes 256 and 256 .* maxComputeWorkgroupStorageSize 4096/);
  });

  it('has one key for each pipeline, whatever the lengths', () => {
    const key = (p: Problem) => planKey(makePlan('forward', p, LARGE));
    expect(key(problem(64, 64, {queryLength: 99, keyLength: 1000, batch: 7}))).toBe(key(problem(64)));
    const others: Array<Partial<Problem>> = [
      {windowRight: 0}, {windowLeft: 5}, {dropoutP: 0.5}, {maskShape: [1, 1, 1, 8]}, {biasShape: [1, 1, 1, 8]},
      {softcap: 30}, {alibi: 'head'}, {hasSinks: true}, {hasSequences: true}, {layout: 'thd'},
      {cache: true}, {pageSize: 8},
    ];
    for (const other of others) {
      expect(key(problem(64, 64, other))).withContext(JSON.stringify(other)).not.toBe(key(problem(64)));
    }
    expect(key(problem(64, 64, {windowRight: 7}))).toBe(key(problem(64, 64, {windowRight: 0})));
    expect(key(problem(64, 64, {softcap: 20}))).toBe(key(problem(64, 64, {softcap: 30})));
  });

  it('becomes constants at the head of otherwise unchanged WGSL', () => {
    const causal = problem(40, 24, {windowRight: 0});
    const plan = makePlan('backward_dkv', causal, LARGE, {wantKeys: true, wantValues: false});
    const text = header(plan);
    for (const line of ['const HEAD_SIZE = 40u;', 'const VALUE_VEC4 = 6u;', 'const WINDOW_RIGHT = true;',
                        'const WANT_VALUES = false;', 'const KEY_GROUPS = 1u;']) {
      expect(text).toContain(line);
    }
    expect(specialise(plan).startsWith(text)).toBeTrue();
    expect(specialise(plan)).toContain('var<storage, read> q: array<vec4f>;');
    // What a shader enables comes first.
    const subgroup = makePlanOn('forward', causal, {...stockCapabilities(LARGE), subgroups: {min: 8, max: 32}});
    expect(specialise(subgroup).startsWith('enable subgroups;\n')).toBeTrue();
  });
});

describe('the plan for few queries', () => {
  const subgroups = (min: number, limits = LARGE) => ({...stockCapabilities(limits), subgroups: {min, max: 128}});
  const stock = stockCapabilities(LARGE);
  // [D, Dv, Nq, Hq, Hkv, device] → threads a row × rows of threads, queries, keys at once (e: values along), bytes
  const table: Array<[number, number, number, number, number, Capabilities, string]> = [
    [128, 128, 1, 32, 32, subgroups(32), '32x4 rows 1 keys 8e bytes 4672'],
    [128, 128, 1, 32, 8, subgroups(32), '32x4 rows 4 keys 4e bytes 10400'],
    [128, 128, 4, 32, 4, subgroups(32), '32x4 rows 8 keys 4e bytes 12576'],
    [64, 64, 1, 8, 8, subgroups(32), '16x8 rows 1 keys 8e bytes 4448'],
    [256, 256, 1, 8, 8, subgroups(32), '32x4 rows 1 keys 4e bytes 3136'],
    [256, 256, 2, 8, 2, subgroups(32, GUARANTEED), '32x4 rows 4 keys 4e bytes 12448'],
    [20, 20, 1, 8, 8, subgroups(32), '8x16 rows 1 keys 8e bytes 4384'],
    // No more lanes than are sure to be one subgroup, but enough to keep a row in registers.
    [128, 128, 1, 32, 32, subgroups(8), '8x16 rows 1 keys 4 bytes 2720'],
    [128, 128, 1, 32, 32, subgroups(4), '8x16 rows 1 keys 4 bytes 2720'],
    [128, 128, 1, 32, 32, stock, '8x16 rows 1 keys 4 bytes 2688'],
    [128, 128, 1, 32, 4, stock, '8x16 rows 4 keys 4 bytes 10752'],
    [256, 256, 1, 8, 8, stock, '16x8 rows 1 keys 4 bytes 3136'],
    [3, 3, 1, 6, 2, stock, '4x32 rows 4 keys 4e bytes 9472'],
  ];
  for (const [headSize, valueSize, queryLength, queryHeads, keyHeads, capabilities, expected] of table) {
    it(`is ${expected} for D${headSize} Dv${valueSize} Nq${queryLength} Hq${queryHeads} Hkv${keyHeads}, ` +
       `${capabilities.subgroups ? `subgroups of ${capabilities.subgroups.min}` : 'no subgroups'}`, () => {
      const of = problem(headSize, valueSize, {queryLength, queryHeads, keyHeads, keyLength: 999});
      const p = makePlanOn('forward', of, capabilities);
      expect(`${p.threadsX}x${p.threadsY} rows ${p.rows} keys ${p.keysAtOnce}${p.earlyValues ? 'e' : ''} ` +
             `bytes ${workgroupBytes(p)}`).toBe(expected);
    });
  }

  it('exists within the guaranteed limits for every pair of head sizes, in whole steps', () => {
    for (const limits of [GUARANTEED, COMPATIBILITY]) {
      for (const capabilities of [stockCapabilities(limits), subgroups(4, limits), subgroups(32, limits)]) {
        for (let size = 1; size <= 256; size += size < 20 ? 1 : 17) {
          for (const valueSize of [1, size, 256]) {
            for (const queryHeads of [2, 6, 32]) {
              const plan = makePlanOn('forward', problem(size, valueSize, {queryLength: 3, queryHeads}), capabilities);
              expect(plan.kind).toBe('decode');
              const sizes = decodeSizes(plan);
              expect(workgroupBytes(plan)).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
              expect(sizes.threads).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
              expect(sizes.headVecs * plan.threadsX).toBeGreaterThanOrEqual(sizes.headVec4);
              expect(sizes.valueVecs * plan.threadsX).toBeGreaterThanOrEqual(sizes.valueVec4);
              for (const whole of [plan.keysAtOnce / 4, sizes.scores / sizes.sharedItems,
                                   sizes.valueVecs / sizes.sharedValues, plan.threadsY]) {
                expect(whole).toBeGreaterThan(0);
                expect(Number.isInteger(whole)).toBeTrue();
              }
            }
          }
        }
      }
    }
  });

  it('reads K and V once for all heads that share them', () => {
    const workgroups = (more: Partial<Problem>) => {
      const of = problem(128, 128, {queryLength: 1, keyLength: 4096, ...more});
      return workgroupCount(
          makePlanOn('forward', of, subgroups(32)), of,
          {batches: of.batch, heads: of.queryHeads, queries: of.queryLength, keys: 4096},
          of.queryHeads / of.keyHeads);
    };
    expect(workgroups({queryHeads: 32, keyHeads: 32})).toBe(32);
    expect(workgroups({queryHeads: 32, keyHeads: 8, batch: 3})).toBe(24);
    expect(workgroups({queryHeads: 32, keyHeads: 2, queryLength: 4})).toBe(2 * 8);
  });
});

describe('the bindings of a shader', () => {
  const storageBuffers = (plan: ReturnType<typeof makePlan>) => new Set(
      [...specialise(plan).matchAll(/@binding\((\d+)\) var<storage/g)].map(([, binding]) => binding));

  it('are only those that its options need', () => {
    const plain = makePlan('forward', problem(64), LARGE);
    const all = makePlan('forward', problem(64, 64, {
      maskShape: [1, 1, 1, 8], biasShape: [1, 1, 1, 8], alibi: 'head', hasSinks: true, hasSequences: true,
    }), LARGE);
    expect(specialise(plain)).not.toContain('var<uniform> table');
    expect(specialise(all)).toContain('var<uniform> table: array<vec4u, TABLE_VEC4>');
    const count = (plan: ReturnType<typeof makePlan>) => storageBuffers(plan).size;
    expect(count(all)).toBe(count(plain) + 2);
  });

  it('are one less for two gradients in one buffer', () => {
    const wanted = {wantKeys: true, wantValues: true};
    const apart = makePlan('backward_dkv', problem(64), LARGE, wanted);
    const shared = makePlan('backward_dkv', problem(64), LARGE, {...wanted, sharedResult: true});
    expect(storageBuffers(shared).size).toBe(storageBuffers(apart).size - 1);
  });
});

describe('the table of a plan', () => {
  it('has room for what heads and sequences bring, in powers of two', () => {
    const words = (more: Partial<Problem>, batches: number) => tableWords('forward', problem(64, 64, more), batches);
    expect(words({}, 3)).toBe(0);
    expect(words({alibi: 'head'}, 3)).toBe(2);
    expect(words({alibi: 'batch'}, 3)).toBe(6);
    expect(words({hasSinks: true}, 3)).toBe(2);
    expect(words({hasSequences: true, alibi: 'batch', hasSinks: true}, 3)).toBe(15 + 6 + 2);
    expect(makePlan('forward', problem(64), LARGE).tableVec4).toBe(0);
    expect(makePlan('forward', problem(64, 64, {alibi: 'head'}), LARGE).tableVec4).toBe(16);
    expect(makePlan('forward', problem(64, 64, {hasSequences: true, batch: 13}), LARGE).tableVec4).toBe(32);
    // Sinks change nothing in the backward kernels.
    expect(makePlan('backward_dq', problem(64, 64, {hasSinks: true}), LARGE).tableVec4).toBe(0);
  });
});

describe('the split of the keys', () => {
  // [B, Hq, Nq, Nk, asked for] → parts × keys of each; others of the problem
  const table: Array<[number, number, number, number, number|undefined, string, Partial<Problem>?]> = [
    [1, 32, 1, 32768, undefined, '16 × 2048'],
    [1, 8, 1, 32768, undefined, '64 × 512'],
    [1, 1, 1, 32768, undefined, '128 × 256'],
    [1, 1, 1, 65536 * 4, undefined, '256 × 1024'],
    [8, 32, 1, 32768, undefined, '2 × 16384'],
    [8, 128, 1, 32768, undefined, '1 × 32768'],
    [1, 1, 1, 100, undefined, '1 × 128'],
    [1, 1, 1, 1000, 3, '3 × 384'],
    [1, 1, 1, 1000, 4, '4 × 256'],
    [1, 1, 1, 1000, 5, '4 × 256'],
    [1, 1, 1, 1000, 100, '8 × 128'],
    [1, 1, 1, 2 ** 20, 1000, '256 × 4096'],
    [1, 1, 5, 2 ** 20, undefined, '64 × 16384'],
    [4, 16, 4096, 4096, undefined, '1 × 4096'],
    [1, 2, 128, 8192, undefined, '64 × 128'],
    [4, 16, 4096, 4096, 1, '1 × 4096'],
    // One workgroup for each place of the GPU: parts pay where the longest sees more keys than most.
    [1, 16, 1024, 1024, undefined, '1 × 1024'],
    [1, 16, 1024, 1024, undefined, '2 × 512', {windowRight: 0}],
    [1, 16, 1024, 1024, undefined, '1 × 1024', {windowRight: 0, windowLeft: 128}],
    [1, 16, 1024, 1024, undefined, '1 × 1024', {headSize: 128, valueSize: 128}],
    [1, 16, 1024, 1024, undefined, '2 × 512', {headSize: 128, valueSize: 128, windowRight: 0}],
    [1, 16, 4096, 4096, undefined, '1 × 4096', {windowRight: 0}],
    [1, 16, 1024, 65536, undefined, '1 × 65536', {windowRight: 0, causalAlignment: 'bottom-right'}],
    [1, 4, 1024, 1024, undefined, '4 × 256'],
    [1, 4, 1024, 1024, undefined, '8 × 128', {windowRight: 0}],
  ];
  for (const [batch, queryHeads, queryLength, keyLength, splits, expected, others = {}] of table) {
    const shape = `B${batch} H${queryHeads} Nq${queryLength} Nk${keyLength} ${JSON.stringify(others)}`;
    it(`is ${expected} for ${shape}, ${splits ?? 'nothing'} asked`, () => {
      const p = problem(64, 64, {batch, queryHeads, keyHeads: queryHeads, queryLength, keyLength, splits, ...others});
      const split = makeSplit(makePlan('forward', p, LARGE), p);
      expect(`${split.splits} × ${split.keys}`).toBe(expected);
      expect(split.splits * split.keys).toBeGreaterThanOrEqual(keyLength);
      expect((split.splits - 1) * split.keys).toBeLessThan(Math.max(1, keyLength));
    });
  }
});

describe('the workgroups of the gradient of a bias', () => {
  const table: Array<[readonly [number, number, number, number], Partial<Record<string, boolean>>, number]> = [
    [[1, 2, 130, 70], {}, 2 * 3 * 2], [[3, 1, 130, 70], {}, 3 * 3 * 2], [[1, 1, 130, 70], {}, 3 * 2],
    [[1, 1, 1, 70], {overQueries: true}, 3 * 2 * 2], [[1, 1, 130, 1], {overKeys: true}, 3 * 2 * 3],
    [[1, 1, 1, 1], {overKeys: true}, 3 * 2 * 3],
  ];
  for (const [biasShape, features, expected] of table) {
    it(`are ${expected} for a bias of [${biasShape}]`, () => {
      const p = problem(64, 64, {batch: 3, queryLength: 130, keyLength: 70, biasShape});
      const plan = makePlan('backward_dbias', p, LARGE, features);
      expect(workgroupCount(plan, p, {batches: 3, heads: 2, queries: 130, keys: 70}, 1)).toBe(expected);
    });
  }
});

describe('chunkOf', () => {
  const expected: Array<[number, number, number]> =
      [[16, 8, 8], [10, 8, 5], [18, 8, 6], [1, 8, 1], [16, 4, 4], [9, 4, 3]];
  for (const [width, most, chunk] of expected) {
    it(`cuts ${width} vec4s into steps of ${chunk}, at most ${most}`, () => {
      expect(chunkOf([width], most)).toBe(chunk);
    });
  }
});

describe('grid', () => {
  it('uses one dimension where it fits and two where not, covering all', () => {
    expect(grid(1, GUARANTEED)).toEqual([1, 1]);
    expect(grid(65535, GUARANTEED)).toEqual([65535, 1]);
    expect(grid(65536, GUARANTEED)).toEqual([32768, 2]);
    for (const n of [65537, 1e6, 65535 * 65535]) {
      const [x, y] = grid(n, GUARANTEED);
      expect(x).toBeLessThanOrEqual(65535);
      expect(y).toBeLessThanOrEqual(65535);
      expect(x * y).toBeGreaterThanOrEqual(n);
      expect(x * y - n).toBeLessThan(y);
    }
  });

  it('refuses more than two dimensions hold', () => {
    expect(() => grid(65535 * 65535 + 1, GUARANTEED)).toThrowError(/maxComputeWorkgroupsPerDimension/);
  });
});
