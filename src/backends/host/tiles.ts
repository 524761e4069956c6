import type {Strides} from '../../op/problem.js';

/** Query rows and keys of one tile. Chosen so that the packed tiles of D = 256 stay in the second-level cache. */
export const TILE_QUERIES = 32;
export const TILE_KEYS = 64;

/** How keys are spread over the pages of a cache. */
export interface Pages {
  /** [B,perSequence]: which page holds the keys from n·size on. */
  readonly table: Int32Array;
  readonly perSequence: number;
  /** Keys of a page. */
  readonly size: number;
  /** Pages that there are. */
  readonly count: number;
}

/** A tensor with its layout resolved: its element (b, row, head, d) is `data[rowStart(view, b, row, head) + d]`. */
export interface View {
  readonly data: Float32Array;
  readonly strides: Strides;
  /** Length of the last axis. */
  readonly size: number;
  /** k and v of a cache in pages. */
  readonly pages?: Pages;
}

/** Index of a row's first element. With pages `batch` is the sequence and `row` its key. */
export function rowStart({strides, pages}: View, batch: number, row: number, head: number): number {
  if (!pages) {
    return strides.base + batch * strides.batch + row * strides.row + head * strides.head;
  }
  const page = pages.table[batch * pages.perSequence + Math.floor(row / pages.size)];
  const bounded = Math.max(0, Math.min(pages.count - 1, page));
  return strides.base + bounded * strides.batch + row % pages.size * strides.row + head * strides.head;
}

/**
 * Copies `rows` rows of one head into a dense float64 tile, so that the inner loops read consecutive doubles and
 * convert each number once.
 */
export function packRows(view: View, batch: number, head: number, first: number, rows: number, tile: Float64Array) {
  const {data, size} = view;
  for (let r = 0; r < rows; r++) {
    const from = rowStart(view, batch, first + r, head);
    for (let d = 0; d < size; d++) {
      tile[r * size + d] = data[from + d];
    }
  }
}

/** scores[i·TILE_KEYS + j] = scale · Σ_d a[i,d]·b[j,d], two rows by four columns at a time. */
export function multiplyTransposed(
    a: Float64Array, rows: number, b: Float64Array, columns: number, size: number, scale: number,
    scores: Float64Array) {
  for (let i = 0; i < rows; i += 2) {
    const a0 = i * size;
    const a1 = i + 1 < rows ? a0 + size : a0;
    for (let j = 0; j < columns; j += 4) {
      const b0 = j * size;
      const b1 = Math.min(j + 1, columns - 1) * size;
      const b2 = Math.min(j + 2, columns - 1) * size;
      const b3 = Math.min(j + 3, columns - 1) * size;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let d = 0; d < size; d++) {
        const x0 = a[a0 + d];
        const x1 = a[a1 + d];
        const y0 = b[b0 + d];
        const y1 = b[b1 + d];
        const y2 = b[b2 + d];
        const y3 = b[b3 + d];
        s00 += x0 * y0;
        s01 += x0 * y1;
        s02 += x0 * y2;
        s03 += x0 * y3;
        s10 += x1 * y0;
        s11 += x1 * y1;
        s12 += x1 * y2;
        s13 += x1 * y3;
      }
      // Columns past the end land inside the tile's own row (TILE_KEYS is a multiple of 4) and are never read.
      const row0 = i * TILE_KEYS + j;
      scores[row0] = s00 * scale;
      scores[row0 + 1] = s01 * scale;
      scores[row0 + 2] = s02 * scale;
      scores[row0 + 3] = s03 * scale;
      const row1 = row0 + TILE_KEYS;
      if (i + 1 < rows) {
        scores[row1] = s10 * scale;
        scores[row1 + 1] = s11 * scale;
        scores[row1 + 2] = s12 * scale;
        scores[row1 + 3] = s13 * scale;
      }
    }
  }
}

/**
 * into[at + d] += Σ_n weights[n]·rows[index[from + n], d]. Only the listed rows are touched, so what a query does not
 * see (NaN, ∞) cannot reach it through 0·NaN.
 */
export function addWeightedRows(
    weights: Float64Array, index: Int32Array, from: number, count: number, rows: Float64Array, size: number,
    into: Float64Array, at: number) {
  let n = 0;
  for (; n + 4 <= count; n += 4) {
    const w0 = weights[n];
    const w1 = weights[n + 1];
    const w2 = weights[n + 2];
    const w3 = weights[n + 3];
    const r0 = index[from + n] * size;
    const r1 = index[from + n + 1] * size;
    const r2 = index[from + n + 2] * size;
    const r3 = index[from + n + 3] * size;
    for (let d = 0; d < size; d++) {
      into[at + d] += w0 * rows[r0 + d] + w1 * rows[r1 + d] + w2 * rows[r2 + d] + w3 * rows[r3 + d];
    }
  }
  for (; n < count; n++) {
    const w = weights[n];
    const r = index[from + n] * size;
    for (let d = 0; d < size; d++) {
      into[at + d] += w * rows[r + d];
    }
  }
}
