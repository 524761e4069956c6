/** Attention on nested arrays in float64, straight from its definition: for examples small enough to be read. */

/** [B][N][H][size]. */
export type Rows = number[][][][];

export interface Rule {
  scale?: number;
  /** The score of a pair, from QKᵀ times the scale. */
  score?(scaled: number, b: number, h: number, i: number, j: number): number;
  /** Whether query i sees key j. */
  sees?(i: number, j: number, b: number, h: number): boolean;
  /** 1/(1 − p) where dropout keeps the weight of a pair, 0 where it drops it. */
  kept?(b: number, h: number, i: number, j: number): number;
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, d) => sum + value * b[d], 0);

/** Output [B][Nq][Hq][Dv] and LSE [B][Hq][Nq]. */
export function plainAttention(q: Rows, k: Rows, v: Rows, rule: Rule = {}): {output: Rows, lse: number[][][]} {
  const {scale = 1 / Math.sqrt(q[0][0][0].length), score = s => s, sees = () => true, kept = () => 1} = rule;
  const lse: number[][][] = q.map(rows => rows[0].map(() => []));
  const output = q.map((rows, b) => rows.map((heads, i) => heads.map((query, h) => {
    const keyHead = Math.floor(h * k[b][0].length / heads.length);
    const seen = k[b].flatMap((keys, j) => sees(i, j, b, h) ?
      [{j, value: score(scale * dot(query, keys[keyHead]), b, h, i, j)}] : []);
    const total = seen.reduce((sum, {value}) => sum + Math.exp(value), 0);
    lse[b][h][i] = Math.log(total);
    return v[b][0][keyHead].map((_, d) => seen.reduce(
        (sum, {j, value}) => sum + Math.exp(value) / total * kept(b, h, i, j) * v[b][j][keyHead][d], 0));
  })));
  return {output, lse};
}

/** The same of sequences end to end, [T][H][size], sequence by sequence. LSE [Hq][Tq]. */
export function plainVarlen(
    q: number[][][], k: number[][][], v: number[][][], cuQ: readonly number[], cuK: readonly number[],
    rule: (queries: number, keys: number) => Rule = () => ({})): {output: number[][][], lse: number[][]} {
  const parts = cuQ.slice(1).map((end, b) => {
    const keys = [cuK[b], cuK[b + 1]] as const;
    return plainAttention(
        [q.slice(cuQ[b], end)], [k.slice(...keys)], [v.slice(...keys)], rule(end - cuQ[b], keys[1] - keys[0]));
  });
  return {
    output: parts.flatMap(({output}) => output[0]),
    lse: q[0].map((_, h) => parts.flatMap(part => part.lse[0][h])),
  };
}

/** Row n of batch b turned by the angles of its position: tables [L][R/2]. */
export function plainRotary(
    x: Rows, cos: number[][], sin: number[][], position: (b: number, n: number) => number,
    interleaved: boolean): Rows {
  const half = cos[0].length;
  return x.map((rows, b) => rows.map((heads, n) => heads.map(row => {
    const turned = [...row];
    for (let r = 0; r < half; r++) {
      const [first, second] = interleaved ? [2 * r, 2 * r + 1] : [r, r + half];
      const [c, s] = [cos[position(b, n)][r], sin[position(b, n)][r]];
      turned[first] = row[first] * c - row[second] * s;
      turned[second] = row[first] * s + row[second] * c;
    }
    return turned;
  })));
}
