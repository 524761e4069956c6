/** One call of attention as the reference takes it: plain data and accessors, without the project's code. */
export interface ReferenceProblem {
  batch: number;
  queryLength: number;
  keyLength: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  valueSize: number;
  layout: 'bnhd'|'bhnd';
  causal: boolean;
  causalAlignment: 'bottom-right'|'top-left';
  softmaxScale: number;
  dropoutP: number;
  seed: number;
  /** Keys seen to the left and to the right of a query's own position, −1 unbounded; absent when all are. */
  windowSize?: readonly [number, number];
  /** 0 or absent: off. */
  softcap?: number;
  alibiSlopes?: (b: number, h: number) => number;
  /** Added to the scores; −∞ hides the pair as a mask does. */
  bias?: (b: number, h: number, i: number, j: number) => number;
  /** The bias' own four axes, each 1 or as in [B,Hq,Nq,Nk]: the shape of its gradient. */
  biasShape?: Shape4;
  /** true where query i of (b, h) may see key j; absent when all may. */
  mask?: (b: number, h: number, i: number, j: number) => boolean;
  /** [B]: the sequences' own lengths; absent when all are full. */
  queryLengths?: ArrayLike<number>;
  keyLengths?: ArrayLike<number>;
  /** One more logit for each row of a head, in the maximum and the denominator only; −∞ is none. */
  sinks?: (h: number) => number;
}

export type Shape4 = readonly [number, number, number, number];

/** Place of (b, h, i, j) in a tensor that broadcasts to [B,Hq,Nq,Nk]. */
export function broadcastIndex([mb, mh, mi, mj]: Shape4): (b: number, h: number, i: number, j: number) => number {
  const [sb, sh, si, sj] = [mb === 1 ? 0 : mh * mi * mj, mh === 1 ? 0 : mi * mj, mi === 1 ? 0 : mj, mj === 1 ? 0 : 1];
  return (b, h, i, j) => b * sb + h * sh + i * si + j * sj;
}

/** Where row n of head h begins in a tensor of q, k, v or the output. */
export type RowStart = (b: number, n: number, h: number) => number;

export function rowStart(
    {layout}: Pick<ReferenceProblem, 'layout'>, rows: number, heads: number, size: number): RowStart {
  return layout === 'bnhd' ? (b, n, h) => ((b * rows + n) * heads + h) * size :
                             (b, n, h) => ((b * heads + h) * rows + n) * size;
}

/** Lengths of sequence b; key i + offset is at the position of query i. */
export function sequenceOf(p: ReferenceProblem, b: number): {queries: number, keys: number, offset: number} {
  const queries = p.queryLengths?.[b] ?? p.queryLength;
  const keys = p.keyLengths?.[b] ?? p.keyLength;
  return {queries, keys, offset: p.causalAlignment === 'bottom-right' ? keys - queries : 0};
}

/** Writes the keys that query i of (b, h) sees, in order; gives how many. */
export function listSeenKeys(p: ReferenceProblem, b: number, h: number, i: number, seen: Int32Array): number {
  const {queries, keys, offset} = sequenceOf(p, b);
  if (i >= queries) {
    return 0;
  }
  const [left, rightOfWindow] = p.windowSize ?? [-1, -1];
  const right = p.causal ? 0 : rightOfWindow;
  const first = left === -1 ? 0 : Math.max(0, i + offset - left);
  const last = right === -1 ? keys - 1 : Math.min(keys - 1, i + offset + right);
  let count = 0;
  for (let j = first; j <= last; j++) {
    if ((!p.mask || p.mask(b, h, i, j)) && p.bias?.(b, h, i, j) !== -Infinity) {
      seen[count++] = j;
    }
  }
  return count;
}
