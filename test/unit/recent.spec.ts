import {makeProblem, problemOf} from '../../src/op/problem.js';
import type {CallOptions, Shapes} from '../../src/op/problem.js';
import {Recent} from '../../src/op/recent.js';

describe('Recent', () => {
  it('gives what it made for as many keys as it was asked to keep, whatever their order', () => {
    const recent = new Recent<number, {key: number}>(5);
    let made = 0;
    const get = (key: number) => recent.get(key, () => {
      made++;
      return {key};
    });
    for (const order of [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]]) {
      for (const key of order) {
        expect(get(key).key).toBe(key);
      }
    }
    expect(made).toBe(5);
  });

  it('never holds more than twice as many, and forgets what was used longest ago', () => {
    const recent = new Recent<number, {key: number}>(5);
    for (let key = 0; key < 1000; key++) {
      recent.get(key, () => ({key}));
      recent.get(-1, () => ({key: -1})); // used all the time
      expect(recent.size).toBeLessThanOrEqual(10);
    }
    const fail = () => {
      throw new Error('made');
    };
    expect(recent.get(-1, fail).key).toBe(-1);
    expect(recent.get(999, fail).key).toBe(999);
    expect(() => recent.get(0, fail)).toThrowError('made');
    expect(recent.get(0, () => ({key: 0})).key).toBe(0);
  });
});

describe('problemOf', () => {
  const shape = [2, 6, 4, 8];
  const shapes: Shapes = {q: {shape}, k: {shape}, v: {shape}};
  const options: CallOptions = {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 0.5, softcap: 0,
    dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
  };
  const otherOptions: Array<Partial<CallOptions>> = [
    {layout: 'bhnd'}, {causalAlignment: 'top-left'}, {windowLeft: 1}, {windowRight: 0}, {windowLeft: 1, windowRight: 1},
    {softmaxScale: 0.25}, {softcap: 5}, {dropoutP: 0.5}, {computeType: 'float16'}, {deterministic: false},
    {cache: true}, {splits: 2},
  ];
  const otherShapes: Shapes[] = [
    {q: {shape: [2, 7, 4, 8]}}, {q: {shape: [2, 6, 8, 8]}}, {v: {shape: [2, 6, 4, 3]}},
    {k: {shape: [2, 6, 2, 8]}, v: {shape: [2, 6, 2, 8]}}, {k: {shape: [2, 1, 4, 8]}, v: {shape: [2, 1, 4, 8]}},
    {mask: {shape: [1, 1, 1, 6]}}, {mask: {shape: [2, 1, 1, 6]}}, {bias: {shape: [1, 1, 1, 6]}},
    {alibiSlopes: {shape: [4]}}, {alibiSlopes: {shape: [2, 4]}}, {sinks: {shape: [4]}}, {sequences: {shape: [2, 5]}},
    {q: undefined, k: undefined, v: undefined, qkv: {shape: [2, 6, 3, 4, 8]}},
    {k: undefined, v: undefined, kv: {shape: [2, 6, 2, 4, 8]}},
  ];
  const calls: Array<[Shapes, CallOptions]> = [
    [shapes, options], ...otherOptions.map((other): [Shapes, CallOptions] => [shapes, {...options, ...other}]),
    ...otherShapes.map((other): [Shapes, CallOptions] => [{...shapes, ...other}, options]),
  ];

  it('gives the same object for the same call, and a call\'s own for every other', () => {
    const problems = calls.map(([s, o]) => problemOf(s, o));
    expect(new Set(problems).size).toBe(calls.length);
    calls.forEach(([s, o], n) => {
      expect(problems[n]).toEqual(makeProblem(s, o));
      expect(problemOf({...s}, {...o, seed: n})).toBe(problems[n]);
    });
  });

  it('checks the shapes of a call that it has not seen', () => {
    for (let n = 0; n < 2; n++) {
      expect(() => problemOf({...shapes, v: {shape: [2, 5, 4, 8]}}, options)).toThrowError(/the length of k, 6/);
    }
  });

  it('keeps nothing where sequences lie end to end', () => {
    const thd: CallOptions = {...options, layout: 'thd', queryOffsets: [0, 4, 6], keyOffsets: [0, 4, 6]};
    const rows = {shape: [6, 4, 8]};
    const ends = {q: rows, k: rows, v: rows};
    expect(problemOf(ends, thd)).not.toBe(problemOf(ends, thd));
    expect(problemOf(ends, thd)).toEqual(makeProblem(ends, thd));
  });
});
