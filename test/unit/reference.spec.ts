import {caseInputs, caseTable, referenceProblem} from '../support/cases.js';
import type {Case, CaseInputs} from '../support/cases.js';
import {float32, float64, referenceAttention} from '../support/reference.js';

const base = caseTable()[0];
const tiny: Case = {
  ...base, batch: 2, queryLength: 3, keyLength: 4, queryHeads: 4, keyHeads: 2, headSize: 3, valueSize: 2,
  softmaxScale: 0.7, causal: true, name: 'tiny', inputSeed: 5,
};

function run(c: Case, inputs: CaseInputs) {
  return referenceAttention(referenceProblem(c, inputs), inputs.q, inputs.k, inputs.v, inputs.dO, inputs.dLse, float64);
}

/** Σ dO∘O + Σ dLSE∘LSE, over the rows that see a key. */
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

describe('the float64 reference', () => {
  it('gives the softmax average worked out by hand', () => {
    const c: Case = {
      ...base, queryLength: 1, keyLength: 2, queryHeads: 1, keyHeads: 1, headSize: 1, valueSize: 1, softmaxScale: 1,
    };
    const one = Float32Array.of(1);
    const inputs: CaseInputs =
        {q: one, k: Float32Array.of(0, Math.log(3)), v: Float32Array.of(10, 20), dO: one, dLse: one};
    const {output, lse} = run(c, inputs);
    expect(output[0]).toBeCloseTo(17.5, 6);
    expect(lse[0]).toBeCloseTo(Math.log(4), 6);
  });

  const variants: Array<Partial<Case>> = [
    {}, {causal: false}, {causalAlignment: 'top-left'}, {layout: 'bhnd'}, {dropoutP: 0.4, seed: 99},
    {maskSpec: {shape: [1, 4, 3, 4], hidden: 0.4}},
  ];
  for (const variant of variants) {
    it(`has gradients that agree with finite differences: ${JSON.stringify(variant)}`, () => {
      const c = {...tiny, ...variant};
      const inputs = caseInputs(c);
      const {dQ, dK, dV} = run(c, inputs);
      const step = 2 ** -10;
      for (const [name, gradient] of [['q', dQ], ['k', dK], ['v', dV]] as const) {
        for (let i = 0; i < inputs[name].length; i++) {
          const shifted = (by: number) => {
            const values = inputs[name].slice();
            values[i] += by;
            return {value: objective(c, {...inputs, [name]: values}), at: values[i]};
          };
          const up = shifted(step);
          const down = shifted(-step);
          const slope = (up.value - down.value) / (up.at - down.at);
          expect(gradient[i]).withContext(`d${name}[${i}]`).toBeCloseTo(slope, 5);
        }
      }
    });
  }

  it('aligns causal masks to the bottom right and to the top left', () => {
    const inputs = caseInputs({...tiny, causal: false});
    const sees = (c: Case) => {
      // With V = one-hot of the key's position, the output is the row of weights.
      const v = new Float32Array(inputs.v.length).map((_, i) => (i % 2 === 0 ? 1 : 0));
      return run({...c, batch: 1, queryHeads: 1, keyHeads: 1}, {...inputs, v}).lse;
    };
    const rowsBottom = sees({...tiny, queryLength: 4, keyLength: 2, causalAlignment: 'bottom-right'});
    expect([...rowsBottom].slice(0, 4).map(x => x === -Infinity)).toEqual([true, true, false, false]);
    const rowsTop = sees({...tiny, queryLength: 4, keyLength: 2, causalAlignment: 'top-left'});
    expect([...rowsTop].slice(0, 4).map(x => x === -Infinity)).toEqual([false, false, false, false]);
  });

  it('is close to plain float32 attention, and not equal to it', () => {
    const c = caseTable().find(({name}) => name.includes('Nq65 Nk127 Hq2 Hkv2 D64'))!;
    const inputs = caseInputs(c);
    const exact = run(c, inputs);
    const plain = referenceAttention(c, inputs.q, inputs.k, inputs.v, inputs.dO, inputs.dLse, float32);
    const error = Math.max(...exact.output.map((x, i) => Math.abs(x - plain.output[i])));
    expect(error).toBeGreaterThan(1e-8);
    expect(error).toBeLessThan(1e-5);
  });
});
