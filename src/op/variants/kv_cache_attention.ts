import {add, op, scalar, sub, Tensor, tidy} from '@tensorflow/tfjs-core';
import type {Tensor1D, Tensor2D, Tensor4D, TensorLike} from '@tensorflow/tfjs-core';

import {attend, drawSeed, optionTensors, rowsTensor, toTensor} from '../attend.js';
import type {Input} from '../attend.js';
import {booleanOption, checkOptionNames, COMMON_OPTIONS, invalid, resolveOptions} from '../options.js';
import type {CommonOptions} from '../options.js';
import {problemOf} from '../problem.js';
import type {CallOptions} from '../problem.js';
import {integersPerBatch, ownBatches, sequencesTensor} from '../sequences.js';
import type {Column} from '../sequences.js';

import {appendRows} from './cache_append.js';
import {applyRotary} from './rotary.js';

/** Options of {@link flashAttentionWithKvCache}: those of attention without dropout, and what flash_attn has here. */
export interface KvCacheOptions extends Omit<CommonOptions, 'dropoutP'|'seed'> {
  /** float32 [B,Nnew,Hkv,D] and [B,Nnew,Hkv,Dv]: rows to append to the cache before attending. Both or neither. */
  k?: Tensor|TensorLike;
  v?: Tensor|TensorLike;
  /**
   * Rows that the cache holds of each sequence before appending (flash_attn `cache_seqlens`): an integer for all, an
   * array [B], or an int32 tensor [B], whose values are not read back. Default: all of the cache, without `k`.
   */
  cacheLengths?: number|Tensor|TensorLike;
  /** float32 [L,R/2]: q and the new keys are rotated (see `applyRotaryEmbedding`). Needs `k`. */
  rotaryCos?: Tensor|TensorLike;
  rotarySin?: Tensor|TensorLike;
  /** Rotate neighbours (GPT-J), the default as in flash_attn; false rotates halves (GPT-NeoX, Llama). */
  rotaryInterleaved?: boolean;
  /** int32 [B]: batch of the cache that holds each sequence. Default: its own. Not with `blockTable`. */
  cacheBatchIndex?: Tensor|TensorLike;
  /** int32 [B]: rows of the cache before these are padding. Default 0. */
  cacheLeftPad?: Tensor|TensorLike;
  /** int32 [B,pages of a sequence]: the cache lies in pages, and this says in which. */
  blockTable?: Tensor|TensorLike;
  /** Parts that the keys are split into, to keep a GPU busy with few queries. Default 0: as the backend sees fit. */
  numSplits?: number;
}

export const KV_CACHE_OPTIONS: readonly string[] = [
  'k', 'v', 'cacheLengths', 'rotaryCos', 'rotarySin', 'rotaryInterleaved', 'cacheBatchIndex', 'cacheLeftPad',
  'blockTable', 'numSplits', ...COMMON_OPTIONS.filter(name => name !== 'dropoutP' && name !== 'seed'),
];

function plus(column: Column, n: number): Column {
  if (n === 0) {
    return column;
  }
  if (column instanceof Tensor) {
    return add(column, scalar(n, 'int32')) as Tensor1D;
  }
  return typeof column === 'number' ? column + n : column.map(value => value + n);
}

function minus(column: Column, other: Column): Column {
  if (!(column instanceof Tensor) && !(other instanceof Tensor)) {
    const at = (c: number|readonly number[], b: number) => typeof c === 'number' ? c : c[b];
    const length = typeof column === 'number' ? (other as readonly number[]).length : column.length;
    return typeof other === 'number' && typeof column === 'number' ?
        column - other :
        Array.from({length}, (_, b) => at(column, b) - at(other, b));
  }
  const tensor = (c: Column) => c instanceof Tensor ? c : typeof c === 'number' ? scalar(c, 'int32') :
                                                                                  toTensor([...c], 'column', 'int32');
  return sub(tensor(column), tensor(other)) as Tensor1D;
}

function perBatch(
    value: number|Tensor|TensorLike|undefined, name: string, batch: number, most: number, fallback: Column): Column {
  if (value === undefined) {
    return fallback;
  }
  if (typeof value === 'number') {
    if (!Number.isInteger(value) || value < 0 || value > most) {
      throw invalid(`an integer from 0 to ${most}`, name, value);
    }
    return value;
  }
  return integersPerBatch(value, name, batch, most);
}

function blockTableOf(value: Tensor|TensorLike|undefined, batch: number, pages: number): Tensor2D|undefined {
  if (value === undefined) {
    return undefined;
  }
  const table = toTensor(value, 'blockTable', 'int32');
  if (table.dtype !== 'int32' || table.rank !== 2 || table.shape[0] !== batch) {
    throw invalid(`an int32 tensor or an array of shape [B,pages of a sequence], B = ${batch},`, 'blockTable', table);
  }
  if (!(value instanceof Tensor)) {
    const wrong = (value as number[][]).flatMap(row => Array.from(row)).find(
        page => !(Number.isInteger(page) && page >= 0 && page < pages));
    if (wrong !== undefined) {
      throw invalid(`pages from 0 to ${pages - 1}`, 'blockTable', wrong);
    }
  }
  return table as Tensor2D;
}

interface NewRows {
  readonly k: Tensor4D;
  readonly v: Tensor4D;
}

function newRowsOf(
    options: KvCacheOptions, batch: number, kCache: Tensor4D, vCache: Tensor4D): NewRows|undefined {
  if ((options.k === undefined) !== (options.v === undefined)) {
    throw invalid('both k and v, or neither', options.k === undefined ? 'k' : 'v', undefined);
  }
  if (options.k === undefined) {
    return undefined;
  }
  const k = rowsTensor(options.k, 'k', '[B,Nnew,Hkv,D]') as Tensor4D;
  const v = rowsTensor(options.v!, 'v', '[B,Nnew,Hkv,Dv]') as Tensor4D;
  const check = (rows: Tensor4D, name: string, expected: number[]) => {
    if (rows.shape.join() !== expected.join()) {
      throw invalid(`shape [${expected}]`, name, rows);
    }
  };
  const [, , heads, headSize] = kCache.shape;
  check(k, 'k', [batch, k.shape[1], heads, headSize]);
  check(v, 'v', [batch, k.shape[1], heads, vCache.shape[3]]);
  return {k, v};
}

/** Called with the cache's tensors where appending made new ones; without it that is an error. */
export type ReplaceCache = (k: Tensor4D, v: Tensor4D) => void;

/** {@link flashAttentionWithKvCache}, for callers that can take new tensors for their cache. */
export function attendOverCache(
    q: Input, kCache: Input, vCache: Input, options: KvCacheOptions, replace?: ReplaceCache): Tensor4D {
  checkOptionNames(options, KV_CACHE_OPTIONS);
  const query = rowsTensor(q, 'q', '[B,Nq,Hq,D]') as Tensor4D;
  let keys = rowsTensor(kCache, 'kCache', '[Bc,capacity,Hkv,D]') as Tensor4D;
  let values = rowsTensor(vCache, 'vCache', '[Bc,capacity,Hkv,Dv]') as Tensor4D;
  if (values.shape.slice(0, 3).join() !== keys.shape.slice(0, 3).join()) {
    throw invalid(`the first three axes of kCache, [${keys.shape.slice(0, 3)}]`, 'vCache', values);
  }
  const [batch, queryLength, , headSize] = query.shape;
  const blockTable = blockTableOf(options.blockTable, batch, keys.shape[0]);
  const capacity = blockTable ? blockTable.shape[1] * keys.shape[1] : keys.shape[1];
  const isOwnBatch = options.cacheBatchIndex === undefined;
  if (blockTable && !isOwnBatch) {
    throw invalid('nothing beside blockTable, which says where each sequence lies,', 'cacheBatchIndex',
                  options.cacheBatchIndex);
  }
  if (!blockTable && isOwnBatch && keys.shape[0] !== batch) {
    throw invalid(`the batch size of q, ${batch}, or cacheBatchIndex`, 'kCache', keys);
  }
  const resolved = resolveOptions(options, 'bnhd', headSize, drawSeed);
  const {numSplits: splits = 0} = options;
  if (!Number.isInteger(splits) || splits < 0) {
    throw invalid('an integer of at least 0', 'numSplits', splits);
  }
  const rows = newRowsOf(options, batch, keys, values);
  const added = rows?.k.shape[1] ?? 0;
  if (added > capacity) {
    throw invalid(`at most ${capacity} rows, the capacity of the cache,`, 'k', rows!.k);
  }
  if (rows && keys.dataId === values.dataId) {
    throw invalid('a tensor of its own, since rows are written into it,', 'vCache', values);
  }
  if (rows && options.cacheLengths === undefined) {
    throw invalid('the rows that the cache holds, where k is appended,', 'cacheLengths', undefined);
  }
  const before = perBatch(options.cacheLengths, 'cacheLengths', batch, capacity - added, capacity);
  const leftPad = perBatch(options.cacheLeftPad, 'cacheLeftPad', batch, capacity, 0);
  const batches = isOwnBatch ? ownBatches(batch) :
                               integersPerBatch(options.cacheBatchIndex!, 'cacheBatchIndex', batch, keys.shape[0] - 1);
  if (rows && Array.isArray(batches) && new Set(batches).size < batch) {
    throw invalid('different batches where k is appended', 'cacheBatchIndex', batches);
  }
  // All is checked before anything is written.
  const tensors = optionTensors(options);
  const call: CallOptions = {...resolved, cache: true, splits: splits === 0 ? undefined : splits};
  problemOf({q: query, k: keys, v: values, ...tensors, blockTable}, call);
  const rotated = rotate(query, rows, before, options, resolved.windowLeft >= 0 || resolved.windowRight >= 0);
  if (rotated.rows) {
    const sequences = sequencesTensor(batch, [0, added, before, added, batches]);
    const {k: newK, v: newV} = rotated.rows;
    const [k, v] = appendRows({k: keys, v: values, newK, newV, sequences, blockTable}, replace === undefined);
    replace?.(k, v);
    [keys, values] = [k, v];
  }
  const sequences =
      sequencesTensor(batch, [0, queryLength, leftPad, minus(plus(before, added), leftPad), batches]);
  const named = {q: rotated.query, k: keys, v: values, ...tensors, sequences, blockTable};
  return attend(named, call, true).output as Tensor4D;
}

function rotate(
    query: Tensor4D, rows: NewRows|undefined, before: Column, options: KvCacheOptions,
    isLocal: boolean): {query: Tensor4D, rows: NewRows|undefined} {
  const {rotaryCos, rotarySin} = options;
  const interleaved = options.rotaryInterleaved === undefined ?
      true :
      booleanOption('rotaryInterleaved', options.rotaryInterleaved);
  if ((rotaryCos === undefined) !== (rotarySin === undefined)) {
    throw invalid('both rotaryCos and rotarySin, or neither', rotaryCos === undefined ? 'rotaryCos' : 'rotarySin',
                  undefined);
  }
  if (rotaryCos === undefined || rotarySin === undefined) {
    return {query, rows};
  }
  if (!rows) {
    throw invalid('new keys to rotate beside q', 'k', undefined);
  }
  const turn = {interleaved, offsets: before as number|Tensor|number[]};
  const names = {cos: 'rotaryCos', sin: 'rotarySin', offsets: 'cacheLengths'};
  return {
    // Without causal or a window all queries stand where the cache ends, as in flash_attn.
    query: applyRotary(query, rotaryCos, rotarySin, turn, isLocal, {x: 'q', ...names}),
    rows: {k: applyRotary(rows.k, rotaryCos, rotarySin, turn, true, {x: 'k', ...names}), v: rows.v},
  };
}

function flashAttentionWithKvCache_(
    q: Input, kCache: Input, vCache: Input, options: KvCacheOptions = {}): Tensor4D {
  return tidy(() => attendOverCache(q, kCache, vCache, options));
}

/**
 * Attention of new queries over a cache of keys and values, for generating text (flash_attn's
 * `flash_attn_with_kvcache`): appends, rotates and attends in one call. Given `k` and `v`, **it writes them into
 * `kCache` and `vCache`**, in the memory of those tensors, on the backends `webgpu`, `cpu`, `wasm` and `tensorflow` (by
 * the native addon, on CPUs; slices of the cache along its first axis share its memory there); others give an error,
 * and `KvCache` works on all. With few queries the keys are split over several workgroups (`numSplits`). Has no
 * gradient. With `causal`, query i sees keys up to its own place at the end of the cache.
 *
 * ```js
 * const o = flashAttentionWithKvCache(q, kCache, vCache, {k, v, cacheLengths: 512, causal: true});   // q [B,1,Hq,D]
 * ```
 *
 * @param q float32 [B,Nq,Hq,D].
 * @param kCache float32 [Bc,capacity,Hkv,D], or pages [pages,page size,Hkv,D] with `blockTable`.
 * @param vCache float32, as kCache with Dv for D.
 * @param options see {@link KvCacheOptions}.
 * @returns float32 [B,Nq,Hq,Dv].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionWithKvCache =
    /* @__PURE__ */ op({flashAttentionWithKvCache_}) as typeof flashAttentionWithKvCache_;
