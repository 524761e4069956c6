import {makeCase} from '../support/case.js';
import {caseInputs, referenceProblem} from '../support/cases.js';
import type {Case, CaseInputs} from '../support/cases.js';
import {float32, float64, referenceAttention} from '../support/reference.js';
import {listSeenKeys} from '../support/reference_problem.js';

const tiny: Case = makeCase(
    {
      batch: 2, queryLength: 3, keyLength: 4, queryHeads: 4, keyHeads: 2, headSize: 3, valueSize: 2, softmaxScale: 0.7,
      causal: true,
    },
    5);

/** One query, two keys, all of size 1: what can be worked out by hand. */
const pair: Case = makeCase(
    {queryLength: 1, keyLength: 2, queryHeads: 1, keyHeads: 1, headSize: 1, valueSize: 1, softmaxScale: 1}, 0);
const one = Float32Array.of(1);
const pairInputs: CaseInputs =
    {q: one, k: Float32Array.of(0, Math.log(3)), v: Float32Array.of(10, 20), dO: one, dLse: one};

const run = (c: Case, inputs: CaseInputs) => referenceAttention(referenceProblem(c, inputs), inputs, float64);

/** Σ dO∘O + Σ dLSE∘LSE, over the rows that see a key or a sink. */
function objective(c: Case, inputs: CaseInputs): number {
  const {output, lse} = run(c, inputs);
  let sum = 0;
  output.forEach((x, i) => {
    sum += x * inputs.dO[i];
  });
  lse.forEach((x, i) => {
    sum += x === -Infinity ? 0 : x * inputs.dLse[i];
  });
  return sum;
}

/** The slope of the objective along one number of an input. */
function slopeAlong(c: Case, inputs: CaseInputs, name: 'q'|'k'|'v'|'bias'|'sinks', i: number): number {
  const shifted = (by: number) => {
    const values = inputs[name]!.slice();
    values[i] += by;
    return {value: objective(c, {...inputs, [name]: values}), at: values[i]};
  };
  const up = shifted(2 ** -10);
  const down = shifted(-(2 ** -10));
  return (up.value - down.value) / (up.at - down.at);
}

describe('the float64 reference', () => {
  it('gives the softmax average worked out by hand', () => {
    const {output, lse} = run(pair, pairInputs);
    expect(output[0]).toBeCloseTo(17.5, 6);
    expect(lse[0]).toBeCloseTo(Math.log(4), 6);
  });

  it('counts a sink in the denominator only', () => {
    const {output, lse} = run({...pair, sinks: true}, {...pairInputs, sinks: Float32Array.of(Math.log(4))});
    expect(output[0]).toBeCloseTo(70 / 8, 6);
    expect(lse[0]).toBeCloseTo(Math.log(8), 6);
  });

  it('caps scores before ALiBi and bias are added', () => {
    const c: Case = {
      ...pair, softcap: 0.5, alibi: 'head', causalAlignment: 'top-left',
      biasSpec: {shape: [1, 1, 1, 2], values: 'normal'},
    };
    const inputs = {...pairInputs, alibiSlopes: Float32Array.of(0.25), bias: Float32Array.of(2, 3)};
    const second = 0.5 * Math.tanh(Math.log(3) / 0.5) - 0.25 + 3;
    expect(run(c, inputs).lse[0]).toBeCloseTo(Math.log(Math.exp(2) + Math.exp(second)), 6);
  });

  const bias = (shape: [number, number, number, number]): Partial<Case> => ({biasSpec: {shape, values: 'normal'}});
  const variants: Array<Partial<Case>> = [
    {}, {causal: false}, {causalAlignment: 'top-left'}, {layout: 'bhnd'}, {dropoutP: 0.4, seed: 99},
    {maskSpec: {shape: [1, 4, 3, 4], hidden: 0.4}},
    {causal: false, windowSize: [1, 0]}, {causal: false, windowSize: [0, 1], causalAlignment: 'top-left'},
    {windowSize: [1, -1]},
    {softcap: 0.6}, {alibi: 'head'}, {alibi: 'batch', causal: false, causalAlignment: 'top-left'},
    bias([2, 4, 3, 4]), bias([1, 4, 3, 4]), bias([2, 1, 1, 4]), {...bias([1, 1, 3, 1]), causal: false},
    {...bias([1, 4, 1, 1]), softcap: 0.6}, {...bias([1, 1, 1, 1]), dropoutP: 0.4, seed: 99},
    {biasSpec: {shape: [1, 2, 3, 4], values: 'withMinusInfinity'}, queryHeads: 2, causal: false},
    {lengths: 'query'}, {lengths: 'key', causal: false}, {lengths: 'both', batch: 4, causalAlignment: 'top-left'},
    {lengths: 'both', batch: 4, alibi: 'batch', causal: false, sinks: true},
    {sinks: true}, {sinks: true, causal: false, dropoutP: 0.4, seed: 99}, {sinks: true, queryLength: 6, keyLength: 3},
    {
      sinks: true, softcap: 0.6, alibi: 'batch', ...bias([2, 1, 3, 4]), windowSize: [1, 2], lengths: 'both',
      maskSpec: {shape: [2, 1, 3, 4], hidden: 0.3}, dropoutP: 0.3, seed: 7, layout: 'bhnd', causal: false,
    },
  ];
  for (const variant of variants) {
    it(`has gradients that agree with finite differences: ${JSON.stringify(variant)}`, () => {
      const c = {...tiny, ...variant};
      const inputs = caseInputs(c);
      const {dQ, dK, dV, dBias, dSinks} = run(c, inputs);
      const gradients = {q: dQ, k: dK, v: dV, bias: dBias, sinks: dSinks};
      for (const name of ['q', 'k', 'v', 'bias', 'sinks'] as const) {
        expect(gradients[name]?.length).withContext(name).toBe(inputs[name]?.length);
        gradients[name]?.forEach((gradient, i) => {
          const isHidden = inputs[name]![i] === -Infinity;
          expect(gradient).withContext(`d${name}[${i}]`)
              .toBeCloseTo(isHidden ? 0 : slopeAlong(c, inputs, name, i), 5);
        });
      }
    });
  }

  describe('sees', () => {
    const sees = (change: Partial<Case>, drawn: Partial<CaseInputs> = {}): string[] => {
      const c: Case = {...tiny, causal: false, queryLength: 4, keyLength: 6, batch: 1, ...change};
      const problem = referenceProblem(c, {...caseInputs(c), ...drawn});
      const seen = new Int32Array(c.keyLength);
      return Array.from({length: c.queryLength}, (_, i) => {
        const keys = [...seen.subarray(0, listSeenKeys(problem, 0, 0, i, seen))];
        return keys.join('');
      });
    };
    const topLeft = {causalAlignment: 'top-left' as const};

    it('all without options, and up to its own position with causal', () => {
      expect(sees({})).toEqual(['012345', '012345', '012345', '012345']);
      expect(sees({causal: true})).toEqual(['012', '0123', '01234', '012345']);
      expect(sees({causal: true, ...topLeft})).toEqual(['0', '01', '012', '0123']);
      expect(sees({causal: true, queryLength: 4, keyLength: 2})).toEqual(['', '', '0', '01']);
    });

    it('an inclusive window around its own position', () => {
      expect(sees({windowSize: [1, 0]})).toEqual(['12', '23', '34', '45']);
      expect(sees({windowSize: [0, 1], ...topLeft})).toEqual(['01', '12', '23', '34']);
      expect(sees({windowSize: [-1, 1], ...topLeft})).toEqual(['01', '012', '0123', '01234']);
      expect(sees({windowSize: [1, -1]})).toEqual(['12345', '2345', '345', '45']);
      expect(sees({windowSize: [-1, -1]})).toEqual(sees({}));
      expect(sees({windowSize: [1, 3], causal: true})).toEqual(sees({windowSize: [1, 0]}));
      expect(sees({windowSize: [1, -1], causal: true})).toEqual(sees({windowSize: [1, 0]}));
    });

    it('by the lengths of its own sequence', () => {
      const lengths = {queryLengths: Int32Array.of(3), keyLengths: Int32Array.of(4)};
      expect(sees({lengths: 'both'}, lengths)).toEqual(['0123', '0123', '0123', '']);
      expect(sees({lengths: 'both', causal: true}, lengths)).toEqual(['01', '012', '0123', '']);
      expect(sees({lengths: 'both', causal: true, ...topLeft}, lengths)).toEqual(['0', '01', '012', '']);
      expect(sees({lengths: 'key', causal: true}, {keyLengths: Int32Array.of(2)})).toEqual(['', '', '0', '01']);
    });

    it('neither what a mask hides nor what a bias of −∞ hides', () => {
      const mask = {maskSpec: {shape: [1, 1, 1, 6], hidden: 0} as const};
      const bias = {biasSpec: {shape: [1, 1, 1, 6], values: 'normal'} as const};
      expect(sees(mask, {mask: Uint8Array.of(1, 0, 1, 1, 0, 1)})[2]).toBe('0235');
      expect(sees(bias, {bias: Float32Array.of(0, -Infinity, -1e30, 5, -Infinity, 1)})[2]).toBe('0235');
    });
  });

  it('gives a row that sees no key O = 0, its sink or −∞ for an LSE, and no gradient but its sink\'s', () => {
    const c: Case = {...tiny, queryLength: 1, batch: 1, lengths: 'key'};
    const inputs = {...caseInputs(c), keyLengths: Int32Array.of(0)};
    const {output, lse, dQ, dK, dV} = run(c, inputs);
    expect([...lse]).toEqual([-Infinity, -Infinity, -Infinity, -Infinity]);
    expect([...output, ...dQ, ...dK, ...dV].every(x => x === 0)).toBeTrue();
    const sinks = Float32Array.of(0.5, -2, 0, -Infinity);
    const withSinks = run({...c, sinks: true}, {...inputs, sinks});
    expect([...withSinks.lse]).toEqual([...sinks]);
    expect([...withSinks.output, ...withSinks.dQ, ...withSinks.dK, ...withSinks.dV].every(x => x === 0)).toBeTrue();
    expect([...withSinks.dSinks!]).toEqual([...inputs.dLse.subarray(0, 3), 0]);
  });

  it('keeps NaN away from rows that do not see it, even by 0·NaN', () => {
    const c: Case = {...tiny, batch: 1, causal: false, biasSpec: {shape: [1, 1, 3, 1], values: 'normal'}};
    const inputs = {...caseInputs(c), bias: Float32Array.of(0, -Infinity, 1)};
    inputs.v.fill(NaN);
    const rows = [0, 1, 2].map(i => [...run(c, inputs).output.subarray(i * 8, i * 8 + 8)]);
    expect(rows.map(row => row.every(Number.isNaN))).toEqual([true, false, true]);
    expect(rows[1]).toEqual(new Array(8).fill(0));
  });

  it('is close to plain float32 attention, and not equal to it', () => {
    const c = makeCase({queryLength: 65, keyLength: 127, causal: true, softcap: 3, alibi: 'head', sinks: true}, 1);
    const inputs = caseInputs(c);
    const exact = run(c, inputs);
    const plain = referenceAttention(referenceProblem(c, inputs), inputs, float32);
    for (const name of ['output', 'lse', 'dQ', 'dK', 'dV', 'dSinks'] as const) {
      const error = Math.max(...exact[name]!.map((x, i) => Math.abs(x - plain[name]![i])));
      expect(error).withContext(name).toBeGreaterThan(1e-8);
      expect(error).withContext(name).toBeLessThan(1e-5);
      expect(plain[name]!.every(x => x === Math.fround(x))).withContext(name).toBeTrue();
    }
  });

  it('measures magnitudes that cover the errors of plain attention, however few its rows are', () => {
    for (let seed = 0; seed < 60; seed++) {
      const c = makeCase({queryLength: 1, keyLength: 2, headSize: 64, values: seed % 2 ? 'large' : 'normal'}, seed);
      const inputs = caseInputs(c);
      const exact = run(c, inputs);
      const plain = referenceAttention(referenceProblem(c, inputs), inputs, float32);
      for (const name of ['output', 'lse', 'dQ', 'dK', 'dV'] as const) {
        const error = Math.max(...exact[name].map((x, i) => Math.abs(x - plain[name][i])));
        expect(error / exact.magnitude![name]).withContext(`${name}, seed ${seed}`).toBeLessThan(4 * 2 ** -24);
      }
    }
  });
});
