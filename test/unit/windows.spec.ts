import type {DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import type {KernelName} from '../../src/backends/webgpu/kernel_names.js';
import {makeWindows, operand, operandsOf, rangeOf, resumes} from '../../src/backends/webgpu/windows.js';
import type {Window} from '../../src/backends/webgpu/windows.js';
import {biasGradientShape, makeProblem, scoreShape} from '../../src/op/problem.js';
import type {CallOptions, Problem, Shapes} from '../../src/op/problem.js';

function limitsOf(maxStorageBufferBindingSize: number): DeviceLimits {
  return {
    maxComputeWorkgroupStorageSize: 16384, maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupSizeX: 256,
    maxComputeWorkgroupsPerDimension: 65535, maxStorageBufferBindingSize, maxBufferSize: 2 ** 30,
    minStorageBufferOffsetAlignment: 256, maxStorageBuffersPerShaderStage: 8, maxUniformBufferBindingSize: 65536,
  };
}

const OPTIONS: CallOptions = {
  layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: 0, softmaxScale: 1, softcap: 0,
  dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
};

type Pairs = 'nothing'|'mask'|'bias';

function problem(layout: 'bnhd'|'bhnd', pairs: Pairs, shapes: Shapes = {}): Problem {
  const shape = (rows: number, heads: number, size: number) =>
      layout === 'bnhd' ? [3, rows, heads, size] : [3, heads, rows, size];
  return makeProblem({
    q: {shape: shape(50, 6, 8)}, k: {shape: shape(37, 2, 8)}, v: {shape: shape(37, 2, 4)},
    ...pairs !== 'nothing' && {[pairs]: {shape: [1, 6, 50, 37]}}, ...shapes,
  }, {...OPTIONS, layout});
}

const KERNELS: KernelName[] = ['forward', 'row_statistics', 'backward_dq', 'backward_dkv'];

/** How often each pair of (batch, head, query, key) is covered. */
function coverage(p: Problem, windows: Window[]): Uint8Array {
  const [, heads, queries, keys] = scoreShape(p);
  const count = new Uint8Array(scoreShape(p).reduce((a, b) => a * b));
  for (const w of windows) {
    for (let b = w.batchFirst; b < w.batchFirst + w.batches; b++) {
      for (let h = w.headFirst; h < w.headFirst + w.heads; h++) {
        for (let i = w.queryFirst; i < w.queryFirst + w.queries; i++) {
          for (let j = w.keyFirst; j < w.keyFirst + w.keys; j++) {
            count[((b * heads + h) * queries + i) * keys + j]++;
          }
        }
      }
    }
  }
  return count;
}

describe('windows', () => {
  it('are the whole problem where everything fits', () => {
    for (const kernel of KERNELS) {
      const windows = makeWindows(kernel, problem('bnhd', 'mask'), limitsOf(2 ** 27));
      expect(windows.length).toBe(1);
      expect(resumes(kernel, problem('bnhd', 'mask'), windows[0])).toBeFalse();
    }
  });

  for (const layout of ['bnhd', 'bhnd'] as const) {
    for (const pairs of ['nothing', 'mask', 'bias'] as const) {
      // bnhd keeps all heads of a row together, so it cannot go as small as bhnd.
      for (const bytes of layout === 'bnhd' ? [20000, 6000, 2000] : [20000, 6000, 2000, 700]) {
        it(`cover every pair once within ${bytes} bytes a binding, ${layout}, with ${pairs}`, () => {
          const p = problem(layout, pairs);
          for (const kernel of pairs === 'bias' ? [...KERNELS, 'backward_dbias' as const] : KERNELS) {
            const limits = limitsOf(bytes);
            const windows = makeWindows(kernel, p, limits);
            expect(windows.length).toBeGreaterThan(kernel === 'row_statistics' ? 0 : 1);
            expect(coverage(p, windows).every(n => n === 1)).toBeTrue();
            for (const window of windows) {
              for (const operand of operandsOf(kernel, p)) {
                const {offset, size, base} = rangeOf(operand, p, window, limits);
                expect(size).toBeLessThanOrEqual(bytes);
                expect(offset % 256).toBe(0);
                expect(base).toBeGreaterThanOrEqual(0);
                expect(Number.isInteger(base)).toBeTrue();
              }
            }
          }
        });
      }
    }
  }

  it('of the packing of a mask begin at whole words of its rows, and cover each element once', () => {
    for (const bytes of [80000, 40000, 26000]) {
      for (const shape of [[3, 6, 150, 97], [1, 6, 1, 97], [1, 1, 150, 1]]) {
        const p = problem('bhnd', 'nothing', {
          q: {shape: [3, 6, 150, 8]}, k: {shape: [3, 2, 97, 8]}, v: {shape: [3, 2, 97, 4]}, mask: {shape},
        });
        const [batches, heads, rows, keys] = shape;
        const count = new Uint8Array(batches * heads * rows * keys);
        const limits = limitsOf(bytes);
        for (const window of makeWindows('pack_mask', p, limits)) {
          const {offset, size, base} = rangeOf(operand(p, 'maskTensor'), p, window, limits);
          expect(size).toBeLessThanOrEqual(bytes);
          expect(window.keyFirst % 32 + window.queryFirst % 64).toBe(0);
          expect(resumes('pack_mask', p, window)).toBeFalse();
          const {strides} = operand(p, 'maskTensor');
          for (let b = 0; b < window.batches; b++) {
            for (let h = 0; h < window.heads; h++) {
              for (let row = 0; row < window.queries; row++) {
                const at = offset / 4 + base + b * strides.batch + h * strides.head + row * strides.row;
                for (let key = 0; key < window.keys; key++) {
                  count[at + key]++;
                }
              }
            }
          }
        }
        expect(count.every(n => n === 1)).withContext(`${shape.join()} in ${bytes}`).toBeTrue();
      }
    }
  });

  it('write each result first, then add to it', () => {
    const p = problem('bhnd', 'nothing');
    for (const kernel of KERNELS) {
      const written = new Set<string>();
      for (const window of makeWindows(kernel, p, limitsOf(700))) {
        const results: string[] = [];
        if (kernel === 'backward_dkv') {
          for (let j = window.keyFirst; j < window.keyFirst + window.keys; j++) {
            results.push(`${window.batchFirst} ${Math.floor(window.headFirst / 3)} ${j}`);
          }
        } else {
          for (let i = window.queryFirst; i < window.queryFirst + window.queries; i++) {
            results.push(`${window.batchFirst} ${window.headFirst} ${i}`);
          }
        }
        for (const result of results) {
          if (kernel !== 'row_statistics') {
            expect(resumes(kernel, p, window)).withContext(`${kernel} ${result}`).toBe(written.has(result));
          }
          written.add(result);
        }
      }
    }
  });

  it('write each part of a bias gradient first, then add to it', () => {
    for (const shape of [[1, 6, 50, 37], [3, 1, 50, 37], [1, 1, 1, 37], [1, 6, 50, 1], [1, 1, 1, 1]]) {
      const p = problem('bhnd', 'nothing', {bias: {shape}});
      const [batches, heads, queries, keys] = biasGradientShape(p);
      const written = new Set<string>();
      const windows = makeWindows('backward_dbias', p, limitsOf(1100));
      expect(windows.length).toBeGreaterThan(4);
      for (const w of windows) {
        const resumed = resumes('backward_dbias', p, w);
        const place = (n: number, size: number) => size === 1 ? 0 : n;
        const results = new Set<string>();
        for (let b = w.batchFirst; b < w.batchFirst + w.batches; b++) {
          for (let h = w.headFirst; h < w.headFirst + w.heads; h++) {
            for (let i = w.queryFirst; i < w.queryFirst + w.queries; i++) {
              for (let j = w.keyFirst; j < w.keyFirst + w.keys; j++) {
                results.add(`${place(b, batches)} ${place(h, heads)} ${place(i, queries)} ${place(j, keys)}`);
              }
            }
          }
        }
        for (const result of results) {
          expect(resumed).withContext(`[${shape}] ${result}`).toBe(written.has(result));
          written.add(result);
        }
      }
    }
  });

  it('take the rows of whole sequences where they lie end to end', () => {
    const rows = {q: {shape: [60, 2, 8]}, k: {shape: [90, 2, 8]}, v: {shape: [90, 2, 8]}};
    const p = makeProblem({...rows, sequences: {shape: [3, 5]}},
        {...OPTIONS, layout: 'thd', queryOffsets: [0, 40, 40, 60], keyOffsets: [0, 10, 70, 90]});
    const windows = makeWindows('forward', p, limitsOf(4000));
    expect(windows.map(({batchFirst, batches}) => [batchFirst, batches])).toEqual([[0, 1], [1, 1], [2, 1]]);
    for (const window of windows) {
      for (const operand of operandsOf('forward', p)) {
        const {offset, size, base} = rangeOf(operand, p, window, limitsOf(4000));
        const offsets = operand.rows === 'queries' ? p.queryOffsets! : p.keyOffsets!;
        const first = offsets[window.batchFirst] * operand.strides.row;
        // The shader counts rows from the tensor's first.
        expect(base * operand.bytes + offset).toBe(0);
        expect(offset).toBeLessThanOrEqual(first * operand.bytes);
        expect(size).toBeGreaterThan(0);
      }
    }
  });

  it('bind all parts of a packed tensor together', () => {
    const p = makeProblem({qkv: {shape: [2, 20, 3, 2, 8]}}, OPTIONS);
    const [window] = makeWindows('forward', p, limitsOf(2 ** 20));
    const ranges = (['q', 'k', 'v'] as const).map(name => rangeOf(operand(p, name), p, window, limitsOf(2 ** 20)));
    expect(ranges.map(({offset, size, base}) => [offset, size, base]))
        .toEqual([[0, 7680, 0], [0, 7680, 16], [0, 7680, 32]]);
  });

  it('keep the table of slopes, sinks and lengths within a uniform binding', () => {
    const p = problem('bnhd', 'nothing', {sequences: {shape: [3, 5]}, alibiSlopes: {shape: [3, 6]}});
    const small = {...limitsOf(2 ** 20), maxUniformBufferBindingSize: 100};
    expect(makeWindows('forward', p, small).map(({batches}) => batches)).toEqual([2, 1]);
    expect(() => makeWindows('forward', p, {...small, maxUniformBufferBindingSize: 40}))
        .toThrowError(/maxUniformBufferBindingSize \(40 bytes\)/);
  });

  it('refuse what cannot be cut small enough, naming the limit and a remedy', () => {
    expect(() => makeWindows('forward', problem('bnhd', 'nothing'), limitsOf(100)))
        .toThrowError(/maxStorageBufferBindingSize \(100 bytes\).*'bhnd'/);
  });
});
