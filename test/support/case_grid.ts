import {makeCase} from './case.js';
import type {BiasSpec, Case, Row, Values} from './case.js';
import {Random} from './random.js';
import type {Shape4} from './reference_problem.js';

/**
 * Thousands of cases in the shape of flash_attn's own tests (tests/test_flash_attn.py): every combination of these
 * lengths and head sizes, each several times with options that a seeded generator draws.
 */
const LENGTHS: ReadonlyArray<readonly [number, number]> = [
  [1, 239], [3, 799], [799, 3], [113, 203], [128, 217], [108, 256], [256, 512], [1, 1], [64, 64], [17, 97],
  [1024, 1023], [1023, 1024], [2048, 2048],
];
const HEAD_SIZES = [32, 40, 59, 64, 80, 96, 111, 128, 160, 192, 224, 256];
const ROUNDS = 39;
const SEED = 20220527;

/** Query–key pairs of a head beyond which there are at most two heads, and no dropout: its reference is slow. */
const MANY_PAIRS = 300_000;

class Draw {
  private readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  chance(share: number): boolean {
    return this.random.uniform() < share;
  }

  one<T>(of: readonly T[]): T {
    return of[this.random.integer(of.length)];
  }

  integer(below: number): number {
    return this.random.integer(below);
  }
}

/** [B,Hq,Hkv] to draw from: fewer the longer the sequences. */
function headCounts(pairs: number): ReadonlyArray<readonly [number, number, number]> {
  if (pairs > MANY_PAIRS) {
    return pairs > 2e6 ? [[1, 1, 1]] : [[1, 1, 1], [1, 2, 1]];
  }
  return pairs > 20_000 ? [[1, 1, 1], [1, 2, 2], [1, 2, 1], [1, 3, 1], [2, 1, 1], [2, 2, 1]] :
                          [[1, 2, 2], [1, 4, 2], [1, 6, 3], [2, 2, 1], [2, 4, 1], [3, 1, 1], [3, 2, 2], [4, 2, 1]];
}

function windowSize(draw: Draw, keyLength: number): [number, number] {
  const side = () => draw.chance(0.25) ? -1 : draw.integer(keyLength);
  return [side(), side()];
}

/** Each axis full or broadcast. */
function broadcastShape(draw: Draw, {batch, queryHeads, queryLength, keyLength}: Omit<Case, 'name'>): Shape4 {
  const axis = (full: number) => draw.chance(0.6) ? full : 1;
  return [axis(batch), axis(queryHeads), axis(queryLength), axis(keyLength)];
}

function options(draw: Draw, c: Case): Partial<Row> {
  const fewPairs = c.queryLength * c.keyLength <= MANY_PAIRS;
  const row: Partial<Row> = {};
  row.causal = draw.chance(0.45);
  row.causalAlignment = draw.chance(0.3) ? 'top-left' : 'bottom-right';
  if (draw.chance(0.3)) {
    row.windowSize = windowSize(draw, c.keyLength);
  }
  if (draw.chance(0.2)) {
    row.softcap = draw.one([1, 5, 30]);
  }
  if (draw.chance(0.25)) {
    row.alibi = draw.one(['head', 'batch']);
  }
  if (draw.chance(0.25)) {
    const values = draw.one<BiasSpec['values']>(['normal', 'normal', 'withMinusInfinity', 'large']);
    row.biasSpec = {shape: broadcastShape(draw, c), values};
  }
  if (draw.chance(0.2)) {
    row.maskSpec = {shape: broadcastShape(draw, c), hidden: draw.one([0.1, 0.5, 0.9])};
  }
  if (draw.chance(0.25)) {
    row.lengths = draw.one(['query', 'key', 'both']);
  }
  if (draw.chance(0.2)) {
    row.sinks = true;
  }
  if (fewPairs && draw.chance(0.2)) {
    row.dropoutP = draw.one([0.17, 0.5]);
    row.seed = draw.integer(2 ** 31) * 2 ** 20;
  }
  row.values = draw.chance(0.67) ? 'normal' : draw.one<Values>(['large', 'nan', 'infinite']);
  if (row.values === 'infinite' && (row.alibi || row.biasSpec?.values === 'large')) {
    // Weights of e^−100 times ∞ are ∞ in float64 and, underflown, NaN in float32.
    row.values = 'nan';
  }
  return row;
}

function drawCase([queryLength, keyLength]: readonly [number, number], headSize: number, seed: number): Case {
  const draw = new Draw(seed);
  const [batch, queryHeads, keyHeads] = draw.one(headCounts(queryLength * keyLength));
  const shape: Row = {
    batch, queryLength, keyLength, queryHeads, keyHeads, headSize, layout: draw.one(['bnhd', 'bhnd']),
    valueSize: draw.chance(0.2) ? draw.one(HEAD_SIZES) : headSize,
  };
  const c = makeCase({...shape, ...options(draw, makeCase(shape, seed))}, seed);
  return {...c, name: `${c.name} seed ${seed}`};
}

/** All cases of the grid; length pairs and head sizes take turns, so that any stretch of it has them all. */
export function caseGrid(): Case[] {
  const grid: Case[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    for (const headSize of HEAD_SIZES) {
      for (const lengths of LENGTHS) {
        grid.push(drawCase(lengths, headSize, SEED + grid.length));
      }
    }
  }
  return grid;
}

/** Multiply-adds of a forward pass without masks. */
export const workOf = (c: Case): number =>
    c.batch * c.queryHeads * c.queryLength * c.keyLength * (c.headSize + c.valueSize);

/** What a case costs besides, in multiply-adds. */
const OVERHEAD = 4e6;

/** How many cases each group gives, `count` in all: the more the cheaper its cases are, as cost^−exponent. */
function shares(costs: readonly number[], count: number, exponent: number): number[] {
  const weights = costs.map(cost => (cost + OVERHEAD) ** -exponent);
  const total = weights.reduce((a, b) => a + b, 0);
  let exact = 0;
  let given = 0;
  return weights.map(weight => {
    exact += count * weight / total;
    const share = Math.round(exact) - given;
    given += share;
    return share;
  });
}

/**
 * The same sample of the grid every time: `count` cases of together at most `budget` multiply-adds. All length pairs
 * give as many, or, where the budget does not allow that, the long ones as few as it takes.
 */
export function gridSample(count: number, budget: number): Case[] {
  const random = new Random(SEED);
  const affordable = caseGrid().filter(c => workOf(c) <= budget / 16)
      .map(c => ({c, key: random.uniform()})).sort((a, b) => a.key - b.key).map(({c}) => c);
  const groups = LENGTHS.map(([queryLength, keyLength]) =>
      affordable.filter(c => c.queryLength === queryLength && c.keyLength === keyLength));
  const work = (cases: readonly Case[]) => cases.reduce((sum, c) => sum + workOf(c), 0);
  const costs = groups.map(group => group.length > 0 ? work(group) / group.length : Infinity);
  for (let exponent = 0; exponent < 4; exponent += 0.02) {
    const share = shares(costs, count, exponent);
    const chosen = groups.flatMap((group, n) => group.slice(0, share[n]));
    if (chosen.length === count && work(chosen) <= budget) {
      return chosen;
    }
  }
  throw new Error(`the grid has no ${count} cases of together ${budget} multiply-adds`);
}
