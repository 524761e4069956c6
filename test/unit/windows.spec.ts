import type {DeviceLimits, KernelName} from '../../src/backends/webgpu/plan.js';
import {makeWindows, operandsOf, rangeOf, resumes} from '../../src/backends/webgpu/windows.js';
import type {Window} from '../../src/backends/webgpu/windows.js';
import {makeProblem, scoreShape} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

function limitsOf(maxStorageBufferBindingSize: number): DeviceLimits {
  return {
    maxComputeWorkgroupStorageSize: 16384, maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupSizeX: 256,
    maxComputeWorkgroupsPerDimension: 65535, maxStorageBufferBindingSize, maxBufferSize: 2 ** 30,
    minStorageBufferOffsetAlignment: 256,
  };
}

function problem(layout: 'bnhd'|'bhnd', mask: boolean): Problem {
  const shape = (rows: number, heads: number, size: number) =>
      layout === 'bnhd' ? [3, rows, heads, size] : [3, heads, rows, size];
  const options = {
    layout, causal: true, causalAlignment: 'bottom-right', softmaxScale: 1, dropoutP: 0, seed: 0,
    computeType: 'float32',
  } as const;
  return makeProblem({shape: shape(50, 6, 8)}, {shape: shape(37, 2, 8)}, {shape: shape(37, 2, 4)}, options,
                     mask ? {shape: [1, 6, 50, 37]} : undefined);
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
      const windows = makeWindows(kernel, problem('bnhd', true), limitsOf(2 ** 27));
      expect(windows.length).toBe(1);
      expect(resumes(kernel, problem('bnhd', true), windows[0])).toBeFalse();
    }
  });

  for (const layout of ['bnhd', 'bhnd'] as const) {
    for (const mask of [false, true]) {
      // bnhd keeps all heads of a row together, so it cannot go as small as bhnd.
      for (const bytes of layout === 'bnhd' ? [20000, 6000, 2000] : [20000, 6000, 2000, 700]) {
        it(`cover every pair once within ${bytes} bytes a binding, ${layout}${mask ? ', with a mask' : ''}`, () => {
          const p = problem(layout, mask);
          for (const kernel of KERNELS) {
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

  it('write each result first, then add to it', () => {
    const p = problem('bhnd', false);
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

  it('refuse what cannot be cut small enough, naming the limit and a remedy', () => {
    expect(() => makeWindows('forward', problem('bnhd', false), limitsOf(100)))
        .toThrowError(/maxStorageBufferBindingSize \(100 bytes\).*'bhnd'/);
  });
});
