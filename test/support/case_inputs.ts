import type {BiasSpec, Case, Values} from './case.js';
import {Random} from './random.js';
import type {ReferenceInputs} from './reference.js';
import {broadcastIndex, rowStart} from './reference_problem.js';
import type {ReferenceProblem, Shape4} from './reference_problem.js';

/** The numbers of a case, each in the shape of its tensor. */
export interface CaseInputs extends ReferenceInputs {
  mask?: Uint8Array;
  bias?: Float32Array;
  /** [Hq] or [B,Hq]. */
  alibiSlopes?: Float32Array;
  queryLengths?: Int32Array;
  keyLengths?: Int32Array;
  sinks?: Float32Array;
}

const sizeOf = (shape: Shape4) => shape.reduce((a, b) => a * b, 1);

function spoil(random: Random, values: Float32Array, kind: Values, count: number) {
  for (let n = 0; n < count; n++) {
    const bad = kind === 'nan' ? NaN : random.integer(2) === 0 ? Infinity : -Infinity;
    values[random.integer(values.length)] = bad;
  }
}

function drawBias(random: Random, {shape, values}: BiasSpec): Float32Array {
  const bias = random.normals(sizeOf(shape), values === 'large' ? 100 : 1);
  return values === 'withMinusInfinity' ? bias.map(x => random.uniform() < 0.3 ? -Infinity : x) : bias;
}

/** Anything up to the full length; the second sequence of a batch is empty and the third is full. */
function drawLengths(random: Random, batch: number, full: number): Int32Array {
  return Int32Array.from({length: batch}, (_, b) => b === 1 ? 0 : b === 2 ? full : random.integer(full + 1));
}

function drawSinks(random: Random, heads: number, scoreScale: number): Float32Array {
  const sinks = random.normals(heads, scoreScale);
  if (heads > 2) {
    sinks[heads - 1] = -Infinity; // a head without one
  }
  return sinks;
}

/** NaN in every row past the length of its sequence. */
function spoilPadding(c: Case, x: Float32Array, rows: number, heads: number, size: number, lengths?: Int32Array) {
  const start = rowStart(c, rows, heads, size);
  lengths?.forEach((length, b) => {
    for (let n = length; n < rows; n++) {
      for (let h = 0; h < heads; h++) {
        x.fill(NaN, start(b, n, h), start(b, n, h) + size);
      }
    }
  });
}

/** The numbers of a case. What is drawn for an option comes after what is drawn without it. */
export function caseInputs(c: Case): CaseInputs {
  const random = new Random(c.inputSeed);
  const queries = c.batch * c.queryLength * c.queryHeads;
  const keys = c.batch * c.keyLength * c.keyHeads;
  const scale = c.values === 'large' ? 8 : 1;
  const inputs: CaseInputs = {
    q: random.normals(queries * c.headSize, scale),
    k: random.normals(keys * c.headSize, scale),
    v: random.normals(keys * c.valueSize),
    dO: random.normals(queries * c.valueSize),
    dLse: random.normals(queries),
  };
  if (c.values === 'nan' || c.values === 'infinite') {
    // One tensor of the four each time the seed changes, so that every way in is tried on its own.
    const target = [inputs.q, inputs.k, inputs.v, inputs.dO][c.inputSeed % 4];
    spoil(random, target, c.values, 2);
  }
  if (c.maskSpec) {
    const {shape, hidden} = c.maskSpec;
    inputs.mask = Uint8Array.from({length: sizeOf(shape)}, () => random.uniform() < hidden ? 0 : 1);
  }
  if (c.biasSpec) {
    inputs.bias = drawBias(random, c.biasSpec);
  }
  if (c.alibi) {
    const length = c.alibi === 'head' ? c.queryHeads : c.batch * c.queryHeads;
    inputs.alibiSlopes = Float32Array.from({length}, () => 0.3 * random.uniform());
  }
  if (c.lengths === 'query' || c.lengths === 'both') {
    inputs.queryLengths = drawLengths(random, c.batch, c.queryLength);
  }
  if (c.lengths === 'key' || c.lengths === 'both') {
    inputs.keyLengths = drawLengths(random, c.batch, c.keyLength);
  }
  if (c.lengths && c.values === 'nan') {
    const {queryLength, keyLength, queryHeads, keyHeads, headSize, valueSize} = c;
    const {queryLengths, keyLengths} = inputs;
    spoilPadding(c, inputs.q, queryLength, queryHeads, headSize, queryLengths);
    spoilPadding(c, inputs.dO, queryLength, queryHeads, valueSize, queryLengths);
    spoilPadding(c, inputs.k, keyLength, keyHeads, headSize, keyLengths);
    spoilPadding(c, inputs.v, keyLength, keyHeads, valueSize, keyLengths);
  }
  if (c.sinks) {
    inputs.sinks = drawSinks(random, c.queryHeads, scale ** 2);
  }
  return inputs;
}

/** The case as the reference takes it. */
export function referenceProblem(c: Case, inputs: CaseInputs): ReferenceProblem {
  const {maskSpec, biasSpec, alibi, sinks, ...plain} = c;
  const problem: ReferenceProblem = {...plain, queryLengths: inputs.queryLengths, keyLengths: inputs.keyLengths};
  if (maskSpec) {
    const at = broadcastIndex(maskSpec.shape);
    problem.mask = (b, h, i, j) => inputs.mask![at(b, h, i, j)] !== 0;
  }
  if (biasSpec) {
    const at = broadcastIndex(biasSpec.shape);
    problem.bias = (b, h, i, j) => inputs.bias![at(b, h, i, j)];
    problem.biasShape = biasSpec.shape;
  }
  if (alibi) {
    problem.alibiSlopes = (b, h) => inputs.alibiSlopes![alibi === 'head' ? h : b * c.queryHeads + h];
  }
  if (sinks) {
    problem.sinks = h => inputs.sinks![h];
  }
  return problem;
}
