/**
 * Tiles of the kernels over subgroup matrices, in order of preference: measured on an H200 and an H100
 * (benchmarks/NOTES.md). What follows the first is for devices with little workgroup memory, or with other matrices.
 */

/** How a workgroup is divided among its subgroups. */
export interface MatrixTiles {
  /** Subgroups of a workgroup. */
  readonly subgroups: number;
  /** Rows of the tiles that all subgroups read. */
  readonly blockRows: number;
  /** Strips, of as many rows of the result as a matrix has, of a subgroup or of those that share them. */
  readonly strips: number;
  /** Forward kernels: subgroups that share strips; each makes some of the scores and sums some of the columns. */
  readonly stripSubgroups: number;
  /** backward_dkv: subgroups of a side, each of which makes the products of some queries and sums some columns. */
  readonly parts: number;
  /**
   * Where operands are split: so many keys are summed by the matrices, which truncate, before the lanes add what came
   * of them.
   */
  readonly flushKeys: number;
}

/** How much there is to do. */
export interface Work {
  /** Rows of the result, of all heads and batches. */
  readonly rows: number;
  /** Some tiles of rows take longer than others: causal. */
  readonly isUneven: boolean;
}

export const MUCH: Work = {rows: Infinity, isUneven: false};

/** Rows whose tiles all run at once on a large GPU. */
const ROWS_AT_ONCE = 2 ** 14;

export const isFew = ({rows}: Work): boolean => rows <= ROWS_AT_ONCE;

/** So few rows that time is what the longest of them takes: more subgroups go through fewer tiles for each. */
export const waitsForLongest = ({rows, isUneven}: Work): boolean =>
    rows <= (isUneven ? ROWS_AT_ONCE : ROWS_AT_ONCE / 2);

const PLAIN = {strips: 1, stripSubgroups: 1, parts: 1, flushKeys: 0};
const tiles = (subgroups: number, blockRows: number, rest: Partial<MatrixTiles> = {}): MatrixTiles =>
    ({...PLAIN, subgroups, blockRows, ...rest});

const SMALL = [4, 2, 1].map(subgroups => tiles(subgroups, 16));
const SMALL_PAIRS = [
  ...[4, 2].map(subgroups => tiles(subgroups, 16)), ...[4, 2].map(subgroups => tiles(subgroups, 32)), tiles(2, 8),
];

/** @param width the larger of the head sizes. */
export function forwardTiles(width: number, work: Work): MatrixTiles[] {
  if (width > 192) {
    return [tiles(8, 16), ...SMALL];
  }
  if (width > 128) {
    return [...SMALL];
  }
  if (width <= 32 || isFew(work) && work.isUneven || width <= 64 && work.rows <= ROWS_AT_ONCE / 2) {
    return [tiles(4, 32), ...SMALL];
  }
  if (width > 64 || isFew(work)) {
    return [tiles(8, 32), tiles(4, 32), ...SMALL];
  }
  return [tiles(4, 16, {strips: 2}), ...SMALL];
}

/** Of the forward kernel that watches every tile. */
export function watchedTiles(width: number): MatrixTiles[] {
  return [
    ...width > 128 ? [tiles(4, 32, {stripSubgroups: 2})] : width > 64 ? [tiles(8, 32)] : [], ...SMALL,
  ];
}

/** Of backward kernels of split operands. */
const SMALL_SPLIT_PAIRS = [...[8, 4, 2].map(subgroups => tiles(subgroups, 16)), tiles(2, 8)];

/** So few rows that two strips of a subgroup leave multiprocessors without work. */
const isVeryFew = ({rows, isUneven}: Work): boolean => rows <= ROWS_AT_ONCE / (isUneven ? 2 : 4);

/** Of backward_dq. */
export function queryGradientTiles(width: number, work: Work, splitOperands: boolean): MatrixTiles[] {
  const small = splitOperands ? SMALL_SPLIT_PAIRS : SMALL_PAIRS;
  if (splitOperands && width > 128) {
    return small;
  }
  if (splitOperands && width > 64) {
    return [width > 96 ? tiles(4, isVeryFew(work) ? 32 : 16) : tiles(8, 16, {strips: 2}), ...small];
  }
  if (waitsForLongest(work)) {
    return [tiles(4, 32, {strips: width > 128 || isVeryFew(work) ? 1 : 2}), ...small];
  }
  return [width <= 192 ? tiles(4, 16, {strips: 2}) : tiles(8, 16), ...small];
}

/** Of backward_dkv. */
export function keyGradientTiles(width: number, work: Work, splitOperands: boolean): MatrixTiles[] {
  const parts = {parts: 2};
  if (splitOperands && width > 128) {
    return SMALL_SPLIT_PAIRS;
  }
  if (splitOperands) {
    const first = width > 96 ? tiles(8, 32, parts) :
        isVeryFew(work) ? tiles(4, 32, {...parts, strips: 2}) :
        width > 32 ? tiles(8, 32, {...parts, strips: 2}) : tiles(4, 16, {strips: 2});
    return [first, ...SMALL_SPLIT_PAIRS];
  }
  if (width > 128) {
    return [width > 192 ? tiles(8, 32, parts) : tiles(8, 16), ...SMALL_PAIRS];
  }
  if (width > 96) {
    return [tiles(8, 32, {...parts, strips: 2}), tiles(8, 16), ...SMALL_PAIRS];
  }
  return [
    waitsForLongest(work) && width <= 64 ? tiles(4, 32, {...parts, strips: 2}) : tiles(4, 16, {strips: 2}),
    ...SMALL_PAIRS,
  ];
}

/** Keys after which sums leave the matrices: 128 are 13% faster, and out of the error budget (H100, NOTES.md). */
const FLUSH_KEYS = 32;

/**
 * Of the forward kernel whose operands are the sum of two f16.
 * @param columns of the result, counted in matrices.
 */
export function splitTiles(width: number, columns: number): MatrixTiles[] {
  const flushed = {flushKeys: FLUSH_KEYS};
  // Queries, sums and results of a strip of large heads are too many registers for one subgroup.
  const isShared = width > 64 && columns % 2 === 0;
  return [
    ...isShared ? [6, 4].map(subgroups => tiles(subgroups, 32, {...flushed, stripSubgroups: 2})) : [],
    // Not of one subgroup, which gave wrong results on an H100 (driver 580.159): barriers mean nothing to it there.
    ...[4, 2].map(subgroups => tiles(subgroups, 16, flushed)),
  ];
}
