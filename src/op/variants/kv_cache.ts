import {dispose, keep, tensor2d, Tensor, tidy, zeros} from '@tensorflow/tfjs-core';
import type {Tensor2D, Tensor4D, TensorLike} from '@tensorflow/tfjs-core';

import type {Input} from '../attend.js';
import {checkOptionNames, invalid} from '../options.js';
import {MAX_HEAD_SIZE} from '../problem.js';

import {attendOverCache, KV_CACHE_OPTIONS} from './kv_cache_attention.js';
import type {KvCacheOptions} from './kv_cache_attention.js';

/** How large a {@link KvCache} is. */
export interface KvCacheConfig {
  /** B: sequences. */
  batch: number;
  /** Most rows of one sequence. */
  capacity: number;
  /** Hkv. */
  keyHeads: number;
  /** D. */
  headSize: number;
  /** Dv. Default D. */
  valueSize?: number;
  /** Rows of a page. Default: no pages, each sequence has its whole capacity from the start. */
  pageSize?: number;
  /** Pages that all sequences share. Default: enough for all at full capacity. */
  pages?: number;
}

const CONFIG = ['batch', 'capacity', 'keyHeads', 'headSize', 'valueSize', 'pageSize', 'pages'] as const;

/** Options of {@link KvCache.attend}: what the cache itself knows is left out. */
export type KvCacheAttendOptions =
    Omit<KvCacheOptions, 'cacheLengths'|'cacheBatchIndex'|'blockTable'>;

/**
 * Keys and values of sequences that grow, as in text generation. Owns its two tensors, which no `tf.tidy` disposes; on
 * `webgpu`, `cpu`, `wasm` and `tensorflow` (by the native addon, on CPUs) rows are written where they belong, without a
 * copy of the cache. With `pageSize` sequences take pages from a common pool as they grow (Kwon et al.,
 * "PagedAttention", 2023).
 *
 * ```js
 * const cache = new KvCache({batch: 1, capacity: 4096, keyHeads: 8, headSize: 64});
 * let o = cache.attend(q, {k, v, causal: true});   // the prompt, then token by token
 * cache.dispose();
 * ```
 */
export class KvCache {
  readonly batch: number;
  readonly capacity: number;
  /** Rows of a page; 0 without pages. */
  readonly pageSize: number;
  private keys: Tensor4D;
  private values: Tensor4D;
  private rows: number[];
  private freePages: number[] = [];
  private pagesOf: number[][] = [];
  private table?: Tensor2D;

  /** @throws `flashAttention: expected … for …, received …` */
  constructor(config: KvCacheConfig) {
    checkOptionNames(config, CONFIG);
    for (const name of CONFIG) {
      const value = config[name];
      const isOptional = name === 'valueSize' || name === 'pageSize' || name === 'pages';
      if (!(isOptional && value === undefined) && !(Number.isSafeInteger(value) && value! >= 1)) {
        throw invalid('an integer of at least 1', name, value);
      }
    }
    const {batch, capacity, keyHeads, headSize, valueSize = headSize, pageSize = 0, pages} = config;
    for (const [name, size] of Object.entries({headSize, valueSize})) {
      if (size > MAX_HEAD_SIZE) {
        throw invalid(`an integer from 1 to ${MAX_HEAD_SIZE}`, name, size);
      }
    }
    if (pages !== undefined && pageSize === 0) {
      throw invalid('nothing without pageSize', 'pages', pages);
    }
    this.batch = batch;
    this.pageSize = pageSize;
    const perSequence = pageSize > 0 ? Math.ceil(capacity / pageSize) : 0;
    this.capacity = capacity;
    this.rows = new Array<number>(batch).fill(0);
    let shape = [batch, capacity];
    if (pageSize > 0) {
      const count = pages ?? batch * perSequence;
      shape = [count, pageSize];
      this.freePages = Array.from({length: count}, (_, n) => count - 1 - n);
      this.pagesOf = this.rows.map(() => []);
    }
    [this.keys, this.values] = [headSize, valueSize].map(
        size => keep(zeros([...shape, keyHeads, size] as Tensor4D['shape'])));
  }

  /** Rows that each sequence holds. */
  get lengths(): readonly number[] {
    return this.rows;
  }

  /** Pages that no sequence has; 0 without pages. */
  get pagesLeft(): number {
    return this.freePages.length;
  }

  /** The keys [B,capacity,Hkv,D], or pages [pages,page size,Hkv,D]. The cache's own: not to be disposed. */
  get k(): Tensor4D {
    return this.alive(this.keys);
  }

  /** The values, laid out as {@link k}. */
  get v(): Tensor4D {
    return this.alive(this.values);
  }

  private alive<T>(value: T): T {
    if (this.keys.isDisposed) {
      throw invalid('a cache that is not disposed', 'KvCache', this.keys);
    }
    return value;
  }

  /**
   * Appends `k` and `v`, where given, to every sequence, and attends to all that the cache then holds.
   * @param q float32 [B,Nq,Hq,D].
   * @param options see {@link KvCacheOptions}.
   * @returns float32 [B,Nq,Hq,Dv].
   * @throws `flashAttention: expected … for …, received …`, and when capacity or pages run out; the cache is then as it
   *     was before.
   */
  attend(q: Input, options: KvCacheAttendOptions = {}): Tensor4D {
    this.alive(this.keys);
    checkOptionNames(options, KV_CACHE_OPTIONS);
    const known = ['cacheLengths', 'cacheBatchIndex', 'blockTable'].find(name => name in options);
    if (known) {
      throw invalid('nothing (the cache knows it)', known, (options as KvCacheOptions)[known as 'blockTable']);
    }
    const added = rowsOf(options.k);
    const longest = Math.max(...this.rows) + added;
    if (longest > this.capacity) {
      throw invalid(`at most ${this.capacity} rows in each sequence (capacity)`, 'k', `${longest} rows in all`);
    }
    const hadTable = this.table !== undefined;
    const undo = this.takePages(added);
    try {
      const output = tidy(() => attendOverCache(q, this.keys, this.values, {
        ...options, cacheLengths: this.rows, ...this.pageSize > 0 && {blockTable: this.blockTable()},
      }, (k, v) => this.replace(k, v)));
      this.rows = this.rows.map(length => length + added);
      return output;
    } catch (error) {
      undo();
      if (!hadTable) {
        this.forgetTable();
      }
      throw error;
    }
  }

  private replace(k: Tensor4D, v: Tensor4D) {
    if (k.dataId !== this.keys.dataId) {
      dispose([this.keys, this.values]);
      [this.keys, this.values] = [keep(k), keep(v)];
    }
  }

  /** Gives every sequence the pages for `added` more rows. Returns what takes them back. */
  private takePages(added: number): () => void {
    if (this.pageSize === 0) {
      return () => {};
    }
    const missing = this.rows.map(
        (length, b) => Math.ceil((length + added) / this.pageSize) - this.pagesOf[b].length);
    const wanted = missing.reduce((sum, n) => sum + n, 0);
    if (wanted > this.freePages.length) {
      throw invalid(`at most ${this.freePages.length} more pages (pages)`, 'k', `rows for ${wanted}`);
    }
    if (wanted === 0) {
      return () => {};
    }
    const before = {free: [...this.freePages], of: this.pagesOf.map(pages => [...pages])};
    missing.forEach((count, b) => {
      for (let n = 0; n < count; n++) {
        this.pagesOf[b].push(this.freePages.pop()!);
      }
    });
    this.forgetTable();
    return () => {
      this.freePages = before.free;
      this.pagesOf = before.of;
      this.forgetTable();
    };
  }

  /** [B,pages of the longest]; unused places say page 0, which no key that is seen lies behind. */
  private blockTable(): Tensor2D {
    if (!this.table) {
      const width = Math.max(1, ...this.pagesOf.map(pages => pages.length));
      const values = this.pagesOf.flatMap(
          pages => Array.from({length: width}, (_, n) => pages[n] ?? 0));
      this.table = keep(tensor2d(values, [this.batch, width], 'int32'));
    }
    return this.table;
  }

  private forgetTable() {
    this.table?.dispose();
    this.table = undefined;
  }

  /**
   * Forgets rows from the end of sequences (speculative decoding, a new prompt), and frees their pages.
   * @param length rows to keep of every sequence, or of each [B]. Sequences that are shorter stay. Default 0.
   */
  truncate(length: number|readonly number[] = 0): void {
    this.alive(this.keys);
    const lengths = typeof length === 'number' ? this.rows.map(() => length) : length;
    if (!Array.isArray(lengths) || lengths.length !== this.batch ||
        !lengths.every(n => Number.isSafeInteger(n) && n >= 0)) {
      throw invalid(`an integer of at least 0, or ${this.batch} of them`, 'length', length);
    }
    this.rows = this.rows.map((rows, b) => Math.min(rows, lengths[b]));
    if (this.pageSize > 0) {
      this.pagesOf.forEach((pages, b) => {
        this.freePages.push(...pages.splice(Math.ceil(this.rows[b] / this.pageSize)).reverse());
      });
      this.forgetTable();
    }
  }

  /** Gives the memory back. */
  dispose(): void {
    dispose([this.keys, this.values]);
    this.forgetTable();
  }
}

/** Rows of new keys, as far as they are well formed; the rest is checked where they are used. */
function rowsOf(k: Tensor|TensorLike|undefined): number {
  const rows = k instanceof Tensor ? k.shape[1] : (k as unknown[][]|null|undefined)?.[0]?.length;
  return Number.isInteger(rows) ? rows! : 0;
}
