import type {ReferenceProblem} from './reference.js';
import {Random} from './random.js';

/** How the inputs are drawn: standard normal, logits in the hundreds, or normal with NaN and ±∞ put in. */
export type Values = 'normal'|'large'|'nan'|'infinite';

/** The mask of a case: its own four axes and how many of its entries are false. */
export interface MaskSpec {
  shape: [number, number, number, number];
  /** Share of entries that are false. 1 masks everything. */
  hidden: number;
}

/** One row of the case table that drives every backend. */
export interface Case extends Omit<ReferenceProblem, 'mask'> {
  name: string;
  values: Values;
  maskSpec?: MaskSpec;
  /** Seed of the inputs. */
  inputSeed: number;
}

export interface CaseInputs {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  dO: Float32Array;
  dLse: Float32Array;
  /** Values of the mask tensor, in its own shape. */
  mask?: Uint8Array;
}

type Row = Partial<Omit<Case, 'name'|'inputSeed'>>&{queryLength: number, keyLength: number};

const SIZES = [1, 3, 17, 63, 64, 65, 127, 200];
const HEAD_SIZES = [1, 3, 8, 40, 64, 72, 96, 128, 192, 256];

function rows(): Row[] {
  const table: Row[] = [];
  const add = (row: Row) => table.push(row);
  for (const n of SIZES) {
    add({queryLength: n, keyLength: n, headSize: 64});
    add({queryLength: n, keyLength: n, headSize: 64, causal: true});
  }
  for (const [queryLength, keyLength] of [[1, 200], [17, 127], [63, 200], [65, 64], [200, 17], [127, 1], [3, 64]]) {
    add({queryLength, keyLength, headSize: 40});
    add({queryLength, keyLength, headSize: 40, causal: true});
    add({queryLength, keyLength, headSize: 40, causal: true, causalAlignment: 'top-left'});
  }
  for (const headSize of HEAD_SIZES) {
    add({queryLength: 65, keyLength: 127, headSize, causal: true});
    add({queryLength: 70, keyLength: 33, headSize, layout: 'bhnd'});
  }
  for (const [headSize, valueSize] of [[64, 32], [32, 64], [3, 8], [96, 5], [128, 256], [256, 64]]) {
    add({queryLength: 65, keyLength: 66, headSize, valueSize, causal: true});
  }
  for (const [queryHeads, keyHeads] of [[2, 1], [4, 2], [6, 2], [8, 1]]) {
    add({queryLength: 65, keyLength: 80, queryHeads, keyHeads, headSize: 32, causal: true, batch: 2});
    add({queryLength: 33, keyLength: 129, queryHeads, keyHeads, headSize: 24, layout: 'bhnd', batch: 2});
  }
  add({queryLength: 17, keyLength: 19, queryHeads: 16, keyHeads: 16, batch: 8, headSize: 16});
  add({queryLength: 64, keyLength: 64, headSize: 64, softmaxScale: 1});
  add({queryLength: 64, keyLength: 64, headSize: 64, softmaxScale: -0.3, causal: true});
  for (const causal of [false, true]) {
    add({queryLength: 70, keyLength: 130, headSize: 64, values: 'large', causal});
    add({queryLength: 130, keyLength: 70, headSize: 36, values: 'large', causal, layout: 'bhnd'});
    add({queryLength: 70, keyLength: 130, headSize: 20, values: 'nan', causal});
    add({queryLength: 130, keyLength: 70, headSize: 64, values: 'nan', causal, queryHeads: 4, keyHeads: 2});
    add({queryLength: 70, keyLength: 130, headSize: 20, values: 'infinite', causal});
    add({queryLength: 130, keyLength: 70, headSize: 64, values: 'infinite', causal, queryHeads: 4, keyHeads: 2});
  }
  const masks: Array<[MaskSpec['shape'], number]> = [
    [[1, 1, 1, 130], 0.5], [[2, 1, 1, 130], 0.3], [[1, 1, 70, 1], 0.4], [[2, 4, 70, 130], 0.5],
    [[1, 4, 70, 130], 0.97], [[1, 1, 1, 1], 1], [[1, 1, 1, 1], 0],
  ];
  for (const [shape, hidden] of masks) {
    const mask = {queryLength: 70, keyLength: 130, queryHeads: 4, keyHeads: 2, batch: 2, headSize: 16};
    add({...mask, maskSpec: {shape, hidden}});
    add({...mask, maskSpec: {shape, hidden}, causal: true, values: hidden === 0.5 ? 'nan' : 'normal'});
  }
  add({queryLength: 65, keyLength: 70, headSize: 32, dropoutP: 0.3, seed: 1234567890123, queryHeads: 4, keyHeads: 2});
  add({queryLength: 90, keyLength: 67, headSize: 13, dropoutP: 0.9, seed: 7, causal: true, batch: 2, layout: 'bhnd'});
  return table;
}

function nameOf(c: Omit<Case, 'name'>): string {
  const parts = [
    `B${c.batch}`, `Nq${c.queryLength}`, `Nk${c.keyLength}`, `Hq${c.queryHeads}`, `Hkv${c.keyHeads}`,
    `D${c.headSize}`, `Dv${c.valueSize}`, c.layout,
  ];
  if (c.causal) {
    parts.push(`causal ${c.causalAlignment}`);
  }
  if (c.maskSpec) {
    parts.push(`mask [${c.maskSpec.shape}] hiding ${c.maskSpec.hidden}`);
  }
  if (c.dropoutP > 0) {
    parts.push(`dropout ${c.dropoutP}`);
  }
  parts.push(`scale ${c.softmaxScale.toPrecision(3)}`, c.values);
  return parts.join(' ');
}

/** The case table. `fresh` is added to every input seed: other numbers, same shapes. */
export function caseTable(fresh = 0): Case[] {
  return rows().map((row, place) => {
    const filled = {
      batch: 1, queryHeads: 2, keyHeads: row.queryHeads ?? 2, headSize: 64, layout: 'bnhd' as const, causal: false,
      causalAlignment: 'bottom-right' as const, dropoutP: 0, seed: 0, values: 'normal' as const,
      inputSeed: 1000 + place + fresh, ...row,
    };
    const valueSize = row.valueSize ?? filled.headSize;
    const softmaxScale = row.softmaxScale ?? 1 / Math.sqrt(filled.headSize);
    const complete = {...filled, valueSize, softmaxScale};
    return {...complete, name: nameOf(complete)};
  });
}

function spoil(random: Random, values: Float32Array, kind: Values, count: number) {
  for (let n = 0; n < count; n++) {
    const bad = kind === 'nan' ? NaN : random.integer(2) === 0 ? Infinity : -Infinity;
    values[random.integer(values.length)] = bad;
  }
}

/** The numbers of a case. */
export function caseInputs(c: Case): CaseInputs {
  const random = new Random(c.inputSeed);
  const queries = c.batch * c.queryLength * c.queryHeads;
  const keys = c.batch * c.keyLength * c.keyHeads;
  const scoreScale = c.values === 'large' ? 8 : 1;
  const inputs: CaseInputs = {
    q: random.normals(queries * c.headSize, scoreScale),
    k: random.normals(keys * c.headSize, scoreScale),
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
    const length = c.maskSpec.shape.reduce((a, b) => a * b, 1);
    inputs.mask = Uint8Array.from({length}, () => random.uniform() < c.maskSpec!.hidden ? 0 : 1);
  }
  return inputs;
}

/** The case as the reference takes it. */
export function referenceProblem(c: Case, inputs: CaseInputs): ReferenceProblem {
  if (!c.maskSpec) {
    return c;
  }
  const [mb, mh, mi, mj] = c.maskSpec.shape;
  const mask = inputs.mask!;
  const at = (b: number, h: number, i: number, j: number) =>
      (((mb === 1 ? 0 : b) * mh + (mh === 1 ? 0 : h)) * mi + (mi === 1 ? 0 : i)) * mj + (mj === 1 ? 0 : j);
  return {...c, mask: (b, h, i, j) => mask[at(b, h, i, j)] !== 0};
}
