import {dropoutThreshold, philoxKey} from '../../op/philox.js';
import {causalOffset} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {DeviceLimits, KernelName} from './plan.js';
import {headsPerKey, operand, rangeOf, resumes} from './windows.js';
import type {OperandName, Window} from './windows.js';

/** The members of type View in `Params` (kernels/wgsl/params.wgsl), in order. */
const VIEWS: readonly OperandName[] = ['q', 'k', 'v', 'output', 'rows', 'statistics', 'mask'];
const SCALARS = 19;
const WORDS = Math.ceil((VIEWS.length * 4 + SCALARS) / 4) * 4;

/** The uniform block of a dispatch over a window, laid out as `Params`. */
export function packParams(
    kernel: KernelName, problem: Problem, window: Window, limits: DeviceLimits): ArrayBuffer {
  const words = new Uint32Array(WORDS);
  const floats = new Float32Array(words.buffer);
  let at = 0;
  for (const name of VIEWS) {
    const bound = operand(problem, name);
    const {base} = rangeOf(bound, problem, window, limits);
    words.set([base, bound.strides.batch, bound.strides.row, bound.strides.head], at);
    at += 4;
  }
  const [seedLow, seedHigh] = philoxKey(problem.seed);
  words.set(
      [
        operand(problem, 'mask').keyStride,
        window.batchFirst, window.headFirst, window.queryFirst, window.keyFirst,
        window.batches, window.heads, window.queries, window.keys,
        problem.queryHeads / problem.keyHeads, headsPerKey(problem, window),
        causalOffset(problem), // two's complement: an i32 in the shader
        resumes(kernel, problem, window) ? 1 : 0,
      ],
      at);
  at += 13;
  floats[at++] = problem.softmaxScale;
  floats[at++] = 1 / (1 - problem.dropoutP);
  words.set([dropoutThreshold(problem.dropoutP), seedLow, seedHigh], at);
  return words.buffer;
}
