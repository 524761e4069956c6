import {readFileSync} from 'node:fs';

import {Random} from '../support/random.js';
import {float64, referenceAttention} from '../support/reference.js';
import type {ReferenceInputs, ReferenceProblem, ResultName} from '../support/reference.js';
import {broadcastIndex} from '../support/reference_problem.js';
import type {Shape4} from '../support/reference_problem.js';

/** A call as scripts/make_torch_goldens.py writes it, in layout bnhd and without dropout. */
type Golden = Omit<ReferenceProblem, 'bias'|'mask'|'sinks'>&Partial<Record<ResultName, Array<number|null>>>&{
  name: string,
  bias?: Shape4,
  bias_hides?: boolean,
  mask?: Shape4,
  alibi?: 'head'|'batch',
  sinks?: boolean,
};

const {attention} = JSON.parse(
    readFileSync(new URL('../fixtures/torch_goldens.json', import.meta.url), 'utf8')) as {attention: Golden[]};

const sizeOf = (shape: Shape4) => shape.reduce((a, b) => a * b, 1);

/** Draws what the script drew, in its order. */
function draw(golden: Golden): {problem: ReferenceProblem, inputs: ReferenceInputs} {
  const {bias: biasShape, bias_hides, mask: maskShape, alibi, sinks: hasSinks, ...plain} = golden;
  const {batch, queryLength, keyLength, queryHeads, keyHeads, headSize, valueSize, seed} = golden;
  const random = new Random(seed);
  const inputs = {
    q: random.sixtyFourths(batch * queryLength * queryHeads * headSize),
    k: random.sixtyFourths(batch * keyLength * keyHeads * headSize),
    v: random.sixtyFourths(batch * keyLength * keyHeads * valueSize),
    dO: random.sixtyFourths(batch * queryLength * queryHeads * valueSize),
    dLse: random.sixtyFourths(batch * queryHeads * queryLength),
  };
  const problem: ReferenceProblem = {...plain, layout: 'bnhd', dropoutP: 0, seed: 0};
  if (biasShape) {
    let bias = random.sixtyFourths(sizeOf(biasShape));
    if (bias_hides) {
      const hidden = random.sixtyFourths(bias.length);
      bias = bias.map((x, n) => hidden[n] < -1 ? -Infinity : x);
    }
    const at = broadcastIndex(biasShape);
    Object.assign(problem, {biasShape, bias: (...place: Shape4) => bias[at(...place)]});
  }
  if (maskShape) {
    const mask = random.sixtyFourths(sizeOf(maskShape));
    const at = broadcastIndex(maskShape);
    problem.mask = (...place) => mask[at(...place)] >= -1;
  }
  if (alibi) {
    const slopes = random.sixtyFourths(alibi === 'head' ? queryHeads : batch * queryHeads);
    problem.alibiSlopes = (b, h) => slopes[alibi === 'head' ? h : b * queryHeads + h] / 4;
  }
  if (hasSinks) {
    const sinks = random.sixtyFourths(queryHeads);
    problem.sinks = h => sinks[h];
  }
  return {problem, inputs};
}

describe('the float64 reference gives what PyTorch gives:', () => {
  for (const golden of attention) {
    it(golden.name, () => {
      const {problem, inputs} = draw(golden);
      const results = referenceAttention(problem, inputs, float64);
      const names: ResultName[] = ['output', 'lse', 'dQ', 'dK', 'dV'];
      if (golden.bias) {
        names.push('dBias');
      }
      if (golden.sinks) {
        names.push('dSinks');
      }
      for (const name of names) {
        const actual = results[name]!;
        const expected = golden[name]!.map(x => x ?? -Infinity);
        expect(actual.length).withContext(name).toBe(expected.length);
        const largest = Math.max(...expected.map(Math.abs).filter(Number.isFinite));
        const wrong = expected.flatMap((x, n) => {
          const equal = Number.isFinite(x) ? Math.abs(actual[n] - x) <= 1e-10 * largest : actual[n] === x;
          return equal ? [] : [`${name}[${n}] is ${actual[n]}, expected ${x}`];
        });
        expect(wrong).toEqual([]);
      }
    });
  }
});
