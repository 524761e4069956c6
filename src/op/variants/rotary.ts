import {
  add, clone, concat, expandDims, gather, mul, neg, op, range, reshape, slice, stack, sub, Tensor, tensor1d, transpose,
  unstack,
} from '@tensorflow/tfjs-core';
import type {Tensor1D, TensorLike} from '@tensorflow/tfjs-core';

import {rowsTensor} from '../attend.js';
import type {Input} from '../attend.js';
import {booleanOption, checkOptionNames, invalid, layoutOf} from '../options.js';
import type {AttentionLayout} from '../options.js';
import {integersPerBatch} from '../sequences.js';
import {withGradients} from './custom_gradient.js';

export interface RotaryOptions {
  /**
   * Which elements are rotated together: false (default) those half of R apart (GPT-NeoX, Llama), true neighbours, even
   * with odd (GPT-J).
   */
  interleaved?: boolean;
  /** Order of the axes of x. Default `'bnhd'`. */
  layout?: AttentionLayout;
  /**
   * Position of the first row (flash_attn `seqlen_offsets`): an integer, one for each batch, or an int32 tensor [B].
   * Default 0. The values of a tensor are not read back; they must lie in [0, L − N]. Beyond that tfjs' gather decides:
   * an error on cpu and wasm, zeros in place of the row on webgpu.
   */
  offsets?: number|Tensor|TensorLike;
}

/** Positions as a place in the tables: the first of consecutive rows for all batches, or each row of each batch. */
type Positions = number|Tensor1D;

/** @param rows consecutive positions for each batch. */
function positionsOf(
    offsets: NonNullable<RotaryOptions['offsets']>, name: string, batch: number, rows: number,
    tableRows: number): Positions {
  const most = tableRows - rows;
  if (typeof offsets === 'number') {
    if (!Number.isInteger(offsets) || offsets < 0 || offsets > most) {
      throw invalid(`an integer from 0 to ${most}`, name, offsets);
    }
    return offsets;
  }
  const firsts = integersPerBatch(offsets, name, batch, most);
  if (firsts instanceof Tensor) {
    return reshape(add(expandDims(firsts, 1), range(0, rows, 1, 'int32')), [batch * rows]) as Tensor1D;
  }
  if (firsts.every(first => first === firsts[0])) {
    return firsts[0] ?? 0;
  }
  return tensor1d(firsts.flatMap(first => Array.from({length: rows}, (_, n) => first + n)), 'int32');
}

/** Rows of a table [L,R/2] at `positions`, to broadcast over x: [B or 1, rows, 1, R/2], or heads before rows. */
function tableRows(table: Tensor, positions: Positions, rows: number, layout: AttentionLayout): Tensor {
  const half = table.shape[1]!;
  const chosen = typeof positions === 'number' ? slice(table, [positions, 0], [rows, half]) : gather(table, positions);
  return reshape(chosen, layout === 'bnhd' ? [-1, rows, 1, half] : [-1, 1, rows, half]);
}

/** The two elements of each pair of a tensor whose last axis is R, each [..., R/2]. */
function splitPairs(x: Tensor, interleaved: boolean): [Tensor, Tensor] {
  const [batch, a, b, size] = x.shape as [number, number, number, number];
  const half = size / 2;
  if (!interleaved) {
    return [slice(x, [0, 0, 0, 0], [batch, a, b, half]), slice(x, [0, 0, 0, half], [batch, a, b, half])];
  }
  // Not a slice of a last axis of 2: wasm copies that element by element in JavaScript. And not a transpose of rank 2:
  // webgpu refuses those beyond a million columns.
  const [even, odd] = unstack(transpose(reshape(x, [batch * a, b * half, 2]), [2, 0, 1]));
  const shape = [batch, a, b, half] as const;
  return [reshape(even, [...shape]), reshape(odd, [...shape])];
}

/** The inverse of {@link splitPairs}, with what follows the pairs. */
function joinPairs(first: Tensor, second: Tensor, rest: Tensor[], interleaved: boolean): Tensor {
  if (!interleaved) {
    return concat([first, second, ...rest], 3);
  }
  const [batch, a, b, half] = first.shape as [number, number, number, number];
  const flat = [batch * a, b * half];
  const pairs = transpose(stack([reshape(first, flat), reshape(second, flat)]), [1, 2, 0]);
  const joined = reshape(pairs, [batch, a, b, 2 * half]);
  return rest.length === 0 ? joined : concat([joined, ...rest], 3);
}

/** Rotates the first R elements of the last axis; cos and sin broadcast over x, their last axis is R/2. */
function rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: boolean): Tensor {
  return withGradients([x], () => {
    const [batch, a, b, size] = x.shape as [number, number, number, number];
    const rotated = 2 * cos.shape[3]!;
    const [first, second] =
        splitPairs(rotated === size ? x : slice(x, [0, 0, 0, 0], [batch, a, b, rotated]), interleaved);
    const rest = rotated === size ? [] : [slice(x, [0, 0, 0, rotated], [batch, a, b, size - rotated])];
    const value = joinPairs(
        sub(mul(first, cos), mul(second, sin)), add(mul(first, sin), mul(second, cos)), rest, interleaved);
    return {value, saved: [cos, sin]};
  }, (dy, [savedCos, savedSin]) => [rotate(dy, savedCos, neg(savedSin), interleaved)]);
}

/** What errors call the arguments: those of a caller that passes them on have other names there. */
interface RotaryNames {
  readonly x: string;
  readonly cos: string;
  readonly sin: string;
  readonly offsets: string;
}

const OWN_NAMES: RotaryNames = {x: 'x', cos: 'cos', sin: 'sin', offsets: 'offsets'};

/** @param advancing whether each row is one position after the row before it. */
export function applyRotary<T extends Tensor>(
    x: T|TensorLike, cos: Input, sin: Input, options: RotaryOptions, advancing: boolean, names = OWN_NAMES): T {
  checkOptionNames(options, ['interleaved', 'layout', 'offsets']);
  const interleaved = booleanOption('interleaved', options.interleaved);
  const layout = layoutOf(options.layout);
  const rows = rowsTensor(x, names.x, layout === 'bnhd' ? '[B,N,H,D]' : '[B,H,N,D]');
  const cosTable = rowsTensor(cos, names.cos, '[L,R/2]');
  const sinTable = rowsTensor(sin, names.sin, '[L,R/2]');
  const [length, half] = cosTable.shape as [number, number];
  const size = rows.shape[3]!;
  if (half < 1 || 2 * half > size) {
    throw invalid(`[L,R/2] with R from 2 to the head size of ${names.x}, ${size}`, names.cos, cosTable);
  }
  if (sinTable.shape.join() !== cosTable.shape.join()) {
    throw invalid(`the shape of ${names.cos}, [${cosTable.shape}]`, names.sin, sinTable);
  }
  const count = advancing ? rows.shape[layout === 'bnhd' ? 1 : 2]! : 1;
  if (length < count) {
    throw invalid(`[L,R/2] with a row for each position, at least ${count}`, names.cos, cosTable);
  }
  const {offsets = 0} = options;
  const positions = positionsOf(offsets, names.offsets, rows.shape[0], count, length);
  if (rows.size === 0) {
    return clone(rows) as T;
  }
  const [cosRows, sinRows] = [cosTable, sinTable].map(table => tableRows(table, positions, count, layout));
  return rotate(rows, cosRows, sinRows, interleaved) as T;
}

function applyRotaryEmbedding_<T extends Tensor>(
    x: T|TensorLike, cos: Input, sin: Input, options: RotaryOptions = {}): T {
  return applyRotary(x, cos, sin, options, true);
}

/**
 * Rotary position embedding (Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021), as
 * flash_attn's `apply_rotary_emb`: pairs of elements of each head are rotated by the angle of the row's position.
 * Differentiable in x; cos and sin count as constants.
 *
 * ```js
 * const angles = tf.outerProduct(tf.range(0, 2048), tf.pow(10000, tf.range(0, 32).div(-32)));   // [L, R/2]
 * const rotated = applyRotaryEmbedding(q, tf.cos(angles), tf.sin(angles));                      // q [B,N,H,64]
 * ```
 *
 * @param x float32 [B,N,H,D], or [B,H,N,D] with `layout: 'bhnd'`.
 * @param cos float32 [L,R/2]: cosines of the angles of positions 0 to L − 1. R ≤ D: elements from R on pass through.
 * @param sin float32 [L,R/2].
 * @param options see {@link RotaryOptions}. Row n of batch b has position offsets[b] + n, below L.
 * @returns float32, the shape of x.
 * @throws `flashAttention: expected … for …, received …`
 */
export const applyRotaryEmbedding =
    /* @__PURE__ */ op({applyRotaryEmbedding_}) as unknown as typeof applyRotaryEmbedding_;

function applyRotaryAtOffsets_<T extends Tensor>(
    x: T|TensorLike, cos: Input, sin: Input, options: RotaryOptions = {}): T {
  return applyRotary(x, cos, sin, options, false);
}

/**
 * {@link applyRotaryEmbedding} where every row of batch b has position offsets[b], below L. flash_attn_with_kvcache
 * rotates q like this when attention is neither causal nor local.
 */
export const applyRotaryAtOffsets =
    /* @__PURE__ */ op({applyRotaryAtOffsets_}) as unknown as typeof applyRotaryAtOffsets_;
