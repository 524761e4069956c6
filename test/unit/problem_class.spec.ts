import {problemClass} from '../../src/backends/webgpu/problem_class.js';
import {plannedCall} from '../../src/op/planned_call.js';
import type {CallShapeOptions} from '../../src/op/planned_call.js';
import type {Problem} from '../../src/op/problem.js';

function problem(queries: number, keys = queries, options: CallShapeOptions = {}, heads = 8): Problem {
  const shape = [1, keys, heads, 64];
  return plannedCall({q: [1, queries, heads, 64], k: shape, v: shape}, options, false).problem;
}

function ofShapes(query: number[], key: number[], value = key): Problem {
  return plannedCall({q: query, k: key, v: value}, {}, false).problem;
}

const cached = (options: CallShapeOptions) => plannedCall(
    {q: [1, 1, 8, 64], kCache: [1, 64, 8, 64], vCache: [1, 64, 8, 64]}, options, false).problem;

describe('classes of problems', () => {
  const alike: Array<[string, Problem, Problem]> = [
    ['lengths of the same power of two', problem(1000), problem(600)],
    ['numbers of heads of the same power of two', problem(64, 64, {}, 8), problem(64, 64, {}, 5)],
    ['windows of different sizes', problem(64, 64, {windowSize: [3, 4]}), problem(64, 64, {windowSize: [9, 1]})],
    ['other scales', problem(64), problem(64, 64, {softmaxScale: 3})],
    ['heads first', problem(64), plannedCall(
        {q: [1, 8, 64, 64], k: [1, 8, 64, 64], v: [1, 8, 64, 64]}, {layout: 'bhnd'}, false).problem],
  ];
  for (const [what, a, b] of alike) {
    it(`take together ${what}`, () => expect(problemClass(a)).toBe(problemClass(b)));
  }

  const different: Array<[string, Problem, Problem]> = [
    ['lengths', problem(1024), problem(1025)],
    ['1 query and 2', problem(1, 64), problem(2, 64)],
    ['head sizes', problem(64), ofShapes([1, 64, 8, 32], [1, 64, 8, 32], [1, 64, 8, 64])],
    ['groups of heads', problem(64), ofShapes([1, 64, 8, 64], [1, 64, 2, 64])],
    ['causal', problem(64), problem(64, 64, {causal: true})],
    ['a window to the left', problem(64, 64, {causal: true}), problem(64, 64, {causal: true, windowSize: [9, -1]})],
    ['a mask', problem(64), problem(64, 64, {mask: [64, 64]})],
    ['a bias', problem(64), problem(64, 64, {bias: [64, 64]})],
    ['dropout', problem(64), problem(64, 64, {dropoutP: 0.1})],
    ['lengths of sequences', problem(64), problem(64, 64, {keyLengths: [1]})],
    ['what may be computed in', problem(64), problem(64, 64, {computeType: 'float16'})],
    ['a cache', problem(1, 64, {keyLengths: [1]}), cached({})],
    ['how keys are split', cached({}), cached({numSplits: 3})],
  ];
  for (const [what, a, b] of different) {
    it(`tell apart ${what}`, () => expect(problemClass(a)).not.toBe(problemClass(b)));
  }

  it('tell apart calls with gradients and without', () =>
    expect(problemClass(problem(64), true)).not.toBe(problemClass(problem(64))));

  it('can be read', () => {
    expect(problemClass(problem(1000, 1000, {causal: true, computeType: 'float16'})))
        .toBe('float16 D64 Dv64 heads 2^3 of 1 queries 2^10 keys 2^10 causal');
  });
});
