import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithLse} from '../../src/index.js';
import type {FlashAttentionOptions} from '../../src/index.js';

import {caseInputs, referenceProblem} from './cases.js';
import type {Case, CaseInputs} from './cases.js';
import {compare, FLOORS} from './error_budget.js';
import type {Comparison} from './error_budget.js';
import {bfloat16, float16, float32, float64, tensorfloat32} from './precision.js';
import type {Precision} from './precision.js';
import {referenceAttention} from './reference.js';
import type {ReferenceResult, ResultName} from './reference.js';

/** Gradients of bias and sinks are there where the case has them. */
export type Results = Record<AlwaysThere, Float32Array>&Partial<Record<ResultName, Float32Array>>;
type AlwaysThere = Exclude<ResultName, 'dBias'|'dSinks'>;

const shapeIn = (c: Case, rows: number, heads: number, size: number): [number, number, number, number] =>
    c.layout === 'bnhd' ? [c.batch, rows, heads, size] : [c.batch, heads, rows, size];

/** Precisions that cases are judged in. */
export type JudgedType = 'float32'|'tensorfloat32'|'float16'|'bfloat16';

const PRECISIONS: Record<JudgedType, Precision> = {float32, tensorfloat32, float16, bfloat16};

/** The options of a case that no gradient is asked for, by their public names. */
function optionsFor(c: Case, inputs: CaseInputs): FlashAttentionOptions {
  const {maskSpec, alibi} = c;
  const {mask, alibiSlopes, queryLengths, keyLengths} = inputs;
  return {
    layout: c.layout, causal: c.causal, causalAlignment: c.causalAlignment, softmaxScale: c.softmaxScale,
    dropoutP: c.dropoutP, seed: c.seed, softcap: c.softcap,
    ...c.windowSize && {windowSize: [...c.windowSize]},
    ...maskSpec && {mask: tf.tensor(mask!, [...maskSpec.shape], 'bool')},
    ...alibi && {alibiSlopes: tf.tensor(alibiSlopes!, alibi === 'head' ? [c.queryHeads] : [c.batch, c.queryHeads])},
    ...queryLengths && {queryLengths: tf.tensor(queryLengths, [c.batch], 'int32')},
    ...keyLengths && {keyLengths: tf.tensor(keyLengths, [c.batch], 'int32')},
  };
}

/** Runs a case forward and backward through the public op on the current backend. */
export async function attentionOf(
    c: Case, inputs: CaseInputs, computeType: JudgedType = 'float32'): Promise<Results> {
  const tensors = tf.tidy(() => {
    const differentiated: Record<string, tf.Tensor> = {
      q: tf.tensor(inputs.q, shapeIn(c, c.queryLength, c.queryHeads, c.headSize)),
      k: tf.tensor(inputs.k, shapeIn(c, c.keyLength, c.keyHeads, c.headSize)),
      v: tf.tensor(inputs.v, shapeIn(c, c.keyLength, c.keyHeads, c.valueSize)),
      ...c.biasSpec && {bias: tf.tensor(inputs.bias!, [...c.biasSpec.shape])},
      ...c.sinks && {sinks: tf.tensor(inputs.sinks!, [c.queryHeads])},
    };
    const dO = tf.tensor(inputs.dO, shapeIn(c, c.queryLength, c.queryHeads, c.valueSize));
    const dLse = tf.tensor(inputs.dLse, [c.batch, c.queryHeads, c.queryLength]);
    const options = {...optionsFor(c, inputs), computeType};
    const names = Object.keys(differentiated);
    const kept: tf.Tensor[] = [];
    const gradients = tf.grads((...args) => {
      const {q, k, v, ...optional} = Object.fromEntries(names.map((name, n) => [name, args[n]]));
      const {output, lse} = flashAttentionWithLse(q as tf.Tensor4D, k, v, {...options, ...optional});
      kept.push(tf.keep(output.clone()), tf.keep(lse.clone()));
      return tf.add(tf.sum(tf.mul(output, dO)), tf.sum(tf.mul(lse, dLse)));
    })(Object.values(differentiated));
    const named = names.map((name, n) => [`d${name[0].toUpperCase()}${name.slice(1)}`, gradients[n]]);
    return {output: kept[0], lse: kept[1], ...Object.fromEntries(named)} as Partial<Record<ResultName, tf.Tensor>>;
  });
  const results: Partial<Results> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    results[name as ResultName] = await tensor.data() as Float32Array;
    tensor.dispose();
  }
  return results as Results;
}

interface References {
  reference: ReferenceResult;
  plain: ReferenceResult;
}

/** Spares the second backend of a process the work of the first. Numbers in all, of 8 bytes each. */
const MOST_REMEMBERED = 24e6;
const remembered = new Map<string, References>();
let rememberedCount = 0;

const count = ({reference, plain}: References): number =>
    [reference, plain].flatMap(result => Object.values(result)).reduce((sum, x) => sum + (x?.length ?? 0), 0);

function remember(key: string, made: References) {
  remembered.set(key, made);
  rememberedCount += count(made);
  for (const [oldest, references] of remembered) {
    if (rememberedCount <= MOST_REMEMBERED) {
      break;
    }
    remembered.delete(oldest);
    rememberedCount -= count(references);
  }
}

/** What matrix products read, rounded as they read it. */
function storedIn({store}: Precision, inputs: CaseInputs): CaseInputs {
  const [q, k, v, dO] = [inputs.q, inputs.k, inputs.v, inputs.dO].map(values => values.map(store));
  return {...inputs, q, k, v, dO};
}

/** Float64 reference and plain attention of a case in the precision. */
export function referencesOf(c: Case, inputs: CaseInputs, computeType: JudgedType = 'float32'): References {
  const key = `${c.name} ${c.inputSeed} ${computeType}`;
  const found = remembered.get(key);
  if (found) {
    return found;
  }
  const problem = referenceProblem(c, inputs);
  const made = {
    reference: referenceAttention(problem, inputs, float64),
    plain: computeType === 'float32' ?
      referenceAttention(problem, inputs, float32) :
      referenceAttention(problem, storedIn(PRECISIONS[computeType], inputs),
          PRECISIONS[computeType]),
  };
  remember(key, made);
  return made;
}

/** Every output and gradient of a case on the current backend, judged by the error budget. */
export async function judgeCase(c: Case, computeType: JudgedType = 'float32'): Promise<Comparison[]> {
  const inputs = caseInputs(c);
  const results = await attentionOf(c, inputs, computeType);
  const {reference, plain} = referencesOf(c, inputs, computeType);
  return (Object.keys(results) as ResultName[])
      .map(name => compare(
          name, results[name]!, reference[name]!, plain[name]!, reference.magnitude![name],
          name === 'output' || name === 'lse' ? 'exact' : 'finite',
          FLOORS[computeType]));
}
