import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithLse} from '../../src/index.js';

import {caseInputs, referenceProblem} from './cases.js';
import type {Case, CaseInputs} from './cases.js';
import {compare} from './error_budget.js';
import type {Comparison} from './error_budget.js';
import {float32, float64, referenceAttention} from './reference.js';
import type {ReferenceResult, ResultName} from './reference.js';

export type Results = Record<ResultName, Float32Array>;

const shapeIn = (c: Case, rows: number, heads: number, size: number): [number, number, number, number] =>
    c.layout === 'bnhd' ? [c.batch, rows, heads, size] : [c.batch, heads, rows, size];

/** Runs a case forward and backward through the public op on the current backend. */
export async function attentionOf(c: Case, inputs: CaseInputs): Promise<Results> {
  const tensors = tf.tidy(() => {
    const q = tf.tensor(inputs.q, shapeIn(c, c.queryLength, c.queryHeads, c.headSize));
    const k = tf.tensor(inputs.k, shapeIn(c, c.keyLength, c.keyHeads, c.headSize));
    const v = tf.tensor(inputs.v, shapeIn(c, c.keyLength, c.keyHeads, c.valueSize));
    const dO = tf.tensor(inputs.dO, shapeIn(c, c.queryLength, c.queryHeads, c.valueSize));
    const dLse = tf.tensor(inputs.dLse, [c.batch, c.queryHeads, c.queryLength]);
    const options = {
      layout: c.layout, causal: c.causal, causalAlignment: c.causalAlignment, softmaxScale: c.softmaxScale,
      dropoutP: c.dropoutP, seed: c.seed,
      ...c.maskSpec && {mask: tf.tensor(inputs.mask!, c.maskSpec.shape, 'bool')},
    };
    const kept: tf.Tensor[] = [];
    const [dQ, dK, dV] = tf.grads((q, k, v) => {
      const {output, lse} = flashAttentionWithLse(q, k, v, options);
      kept.push(tf.keep(output.clone()), tf.keep(lse.clone()));
      return tf.add(tf.sum(tf.mul(output, dO)), tf.sum(tf.mul(lse, dLse)));
    })([q, k, v]);
    return {output: kept[0], lse: kept[1], dQ, dK, dV};
  });
  const results: Partial<Results> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    results[name as ResultName] = await tensor.data() as Float32Array;
    tensor.dispose();
  }
  return results as Results;
}

const references = new Map<string, {reference: ReferenceResult, plain: ReferenceResult}>();

/** Float64 reference and plain float32 attention of a case, computed once a process. */
export function referencesOf(c: Case, inputs: CaseInputs) {
  const key = `${c.name} ${c.inputSeed}`;
  let found = references.get(key);
  if (!found) {
    const problem = referenceProblem(c, inputs);
    const run = (round: (x: number) => number) =>
        referenceAttention(problem, inputs.q, inputs.k, inputs.v, inputs.dO, inputs.dLse, round);
    found = {reference: run(float64), plain: run(float32)};
    references.set(key, found);
  }
  return found;
}

/** Every output and gradient of a case on the current backend, judged by the error budget. */
export async function judgeCase(c: Case): Promise<Comparison[]> {
  const inputs = caseInputs(c);
  const results = await attentionOf(c, inputs);
  const {reference, plain} = referencesOf(c, inputs);
  return (Object.keys(results) as Array<ResultName>)
      .map(name => compare(
          name, results[name], reference[name], plain[name], reference.magnitude[name],
          name === 'output' || name === 'lse' ? 'exact' : 'finite'));
}
