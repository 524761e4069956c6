import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithKvCache, KvCache} from '../../src/index.js';
import type {KvCacheConfig} from '../../src/index.js';

import {disposed, integers, malformedCalls, ones} from './malformed_call.js';
import type {MalformedCall, Row} from './malformed_call.js';

const q = () => ones(2, 1, 4, 8); // B 2, Nq 1, Hq 4, D 8
const kCache = () => ones(2, 6, 2, 8); // capacity 6, Hkv 2
const vCache = () => ones(2, 6, 2, 4); // Dv 4

/** Good tensors with these options. */
const having = (options: () => unknown) => () => [q(), kCache(), vCache(), options()];
/** The same with rows to append, as many as there are queries unless told otherwise. */
const appending = (options: () => object) =>
    having(() => ({k: ones(2, 1, 2, 8), v: ones(2, 1, 2, 4), cacheLengths: 3, ...options()}));
/** The same over five pages of 6 rows. */
const paged = (options: () => object) => () => [q(), ones(5, 6, 2, 8), ones(5, 6, 2, 4), options()];

const PER_BATCH = 'an int32 tensor or an array of shape [B] = [2]';
const TABLE = 'an int32 tensor or an array of shape [B,pages of a sequence], B = 2, for blockTable,';
const NAMES = 'one of k, v, cacheLengths, rotaryCos, rotarySin, rotaryInterleaved, cacheBatchIndex, cacheLeftPad, ' +
    'blockTable, numSplits, causal, causalAlignment, windowSize, softmaxScale, softcap, alibiSlopes, sinks, ' +
    'computeType, deterministic for the name of an option';

const tensors: Row[] = [
  ['no q', () => [undefined, kCache(), vCache()], 'a tensor or a nested array for q, received undefined'],
  ['q of rank 3', () => [ones(2, 4, 8), kCache(), vCache()],
   'a float32 tensor of rank 4, [B,Nq,Hq,D] for q, received float32 [2,4,8]'],
  ['no cache', () => [q()], 'a tensor or a nested array for kCache, received undefined'],
  ['an int32 cache', () => [q(), tf.ones([2, 6, 2, 8], 'int32'), vCache()],
   'a float32 tensor of rank 4, [Bc,capacity,Hkv,D] for kCache, received int32 [2,6,2,8]'],
  ['a cache of rank 3', () => [q(), kCache(), ones(6, 2, 4)],
   'a float32 tensor of rank 4, [Bc,capacity,Hkv,Dv] for vCache, received float32 [6,2,4]'],
  ['a disposed cache', () => [q(), disposed(2, 6, 2, 8), vCache()],
   'a tensor that is not disposed for kCache, received a disposed tensor'],
  ['one tensor for both caches, appending', () => {
    const cache = ones(2, 6, 2, 8);
    return [q(), cache, cache, {k: ones(2, 1, 2, 8), v: ones(2, 1, 2, 8), cacheLengths: 3}];
  }, 'a tensor of its own, since rows are written into it, for vCache, received float32 [2,6,2,8]'],
  ['caches of two capacities', () => [q(), kCache(), ones(2, 7, 2, 4)],
   'the first three axes of kCache, [2,6,2] for vCache, received float32 [2,7,2,4]'],
  ['a cache of another head size', () => [q(), ones(2, 6, 2, 5), vCache()],
   'the head size of q, 8 (last axis) for kCache, received [2,6,2,5]'],
  ['heads that do not divide', () => [ones(2, 1, 3, 8), kCache(), vCache()],
   'a number of heads that divides the 3 of q (layout \'bnhd\') for kCache, received [2,6,2,8]'],
  ['a cache of another batch', () => [q(), ones(3, 6, 2, 8), ones(3, 6, 2, 4)],
   'the batch size of q, 2, or cacheBatchIndex for kCache, received float32 [3,6,2,8]'],
  ['value size 257', () => [q(), kCache(), ones(2, 6, 2, 257)],
   'a head size from 1 to 256 (last axis) for vCache, received [2,6,2,257]'],
];

const options: Row[] = [
  ['options null', having(() => null), 'an object for options, received null'],
  ['dropout', having(() => ({dropoutP: 0.1})), `${NAMES}, received 'dropoutP'`],
  ['a bias', having(() => ({bias: ones(1, 6)})), `${NAMES}, received 'bias'`],
  ['flash_attn\'s name of the lengths', having(() => ({cache_seqlens: 3})), `${NAMES}, received 'cache_seqlens'`],
  ['causal a string', having(() => ({causal: 'true'})), 'a boolean for causal, received \'true\''],
  ['a null number of splits', having(() => ({numSplits: null})),
   'an integer of at least 0 for numSplits, received null'],
  ['a negative number of splits', having(() => ({numSplits: -1})),
   'an integer of at least 0 for numSplits, received -1'],
  ['half a split', having(() => ({numSplits: 1.5})), 'an integer of at least 0 for numSplits, received 1.5'],
  ['a NaN number of splits', having(() => ({numSplits: NaN})), 'an integer of at least 0 for numSplits, received NaN'],
  ['slopes of the key heads', having(() => ({alibiSlopes: [1, 2]})),
   'shape [Hq] = [4] or [B,Hq] = [2,4] for alibiSlopes, received [2]'],
  ['sinks of the key heads', having(() => ({sinks: [1, 2]})), 'shape [Hq] = [4] for sinks, received [2]'],
];

const lengths: Row[] = [
  ['a length beyond the capacity', having(() => ({cacheLengths: 7})),
   'an integer from 0 to 6 for cacheLengths, received 7'],
  ['a negative length', having(() => ({cacheLengths: -1})), 'an integer from 0 to 6 for cacheLengths, received -1'],
  ['a NaN length', having(() => ({cacheLengths: NaN})), 'an integer from 0 to 6 for cacheLengths, received NaN'],
  ['an array with a length beyond the capacity', having(() => ({cacheLengths: [6, 7]})),
   '2 integers from 0 to 6 for cacheLengths, received [6,7]'],
  ['too many lengths', having(() => ({cacheLengths: [1, 2, 3]})),
   '2 integers from 0 to 6 for cacheLengths, received [1,2,3]'],
  ['float32 lengths', having(() => ({cacheLengths: ones(2)})),
   `${PER_BATCH} for cacheLengths, received float32 [2]`],
  ['lengths in words', having(() => ({cacheLengths: 'all'})), `${PER_BATCH} for cacheLengths, received 'all'`],
  ['an appended row beyond the capacity', appending(() => ({cacheLengths: 6})),
   'an integer from 0 to 5 for cacheLengths, received 6'],
  ['a sequence that overflows', appending(() => ({cacheLengths: [2, 6]})),
   '2 integers from 0 to 5 for cacheLengths, received [2,6]'],
  ['rows to append without lengths', appending(() => ({cacheLengths: undefined})),
   'the rows that the cache holds, where k is appended, for cacheLengths, received undefined'],
  ['left padding beyond the capacity', having(() => ({cacheLeftPad: [0, 7]})),
   '2 integers from 0 to 6 for cacheLeftPad, received [0,7]'],
  ['left padding of another batch', having(() => ({cacheLeftPad: integers(1, 2, 3)})),
   `${PER_BATCH} for cacheLeftPad, received int32 [3]`],
  ['a batch beyond the cache', having(() => ({cacheBatchIndex: [0, 2]})),
   '2 integers from 0 to 1 for cacheBatchIndex, received [0,2]'],
  ['a negative batch', having(() => ({cacheBatchIndex: [-1, 0]})),
   '2 integers from 0 to 1 for cacheBatchIndex, received [-1,0]'],
  ['one batch for all', having(() => ({cacheBatchIndex: 0})), `${PER_BATCH} for cacheBatchIndex, received 0`],
  ['one batch twice, with rows to append', appending(() => ({cacheBatchIndex: [1, 1]})),
   'different batches where k is appended for cacheBatchIndex, received [1,1]'],
];

const pages: Row[] = [
  ['a table beside batches', paged(() => ({blockTable: [[0], [1]], cacheBatchIndex: [0, 1]})),
   'nothing beside blockTable, which says where each sequence lies, for cacheBatchIndex, received [0,1]'],
  ['a page beyond the pool', paged(() => ({blockTable: [[0, 1], [2, 5]]})),
   'pages from 0 to 4 for blockTable, received 5'],
  ['a negative page', paged(() => ({blockTable: [[0, 1], [2, -1]]})), 'pages from 0 to 4 for blockTable, received -1'],
  ['half a page', paged(() => ({blockTable: [[0], [0.5]]})), 'pages from 0 to 4 for blockTable, received 0.5'],
  ['a NaN page', paged(() => ({blockTable: [[0], [NaN]]})), 'pages from 0 to 4 for blockTable, received NaN'],
  ['a flat table', paged(() => ({blockTable: [0, 1]})), `${TABLE} received int32 [2]`],
  ['a table of another batch', paged(() => ({blockTable: [[0, 1, 2]]})), `${TABLE} received int32 [1,3]`],
  ['a float32 table', paged(() => ({blockTable: ones(2, 2)})), `${TABLE} received float32 [2,2]`],
  ['a ragged table', paged(() => ({blockTable: [[0], [1, 2]]})),
   'a nested array with rows of equal lengths for blockTable, received [[0],[1,2]]'],
  ['a disposed table', paged(() => ({blockTable: disposed(2, 2)})),
   'a tensor that is not disposed for blockTable, received a disposed tensor'],
  ['a length beyond the pages', paged(() => ({blockTable: [[0, 1], [2, 3]], cacheLengths: 13})),
   'an integer from 0 to 12 for cacheLengths, received 13'],
];

const tables = () => ({rotaryCos: ones(10, 2), rotarySin: ones(10, 2)});

const newRows: Row[] = [
  ['k without v', having(() => ({k: ones(2, 1, 2, 8), cacheLengths: 3})),
   'both k and v, or neither for v, received undefined'],
  ['v without k', having(() => ({v: ones(2, 1, 2, 4), cacheLengths: 3})),
   'both k and v, or neither for k, received undefined'],
  ['k of rank 3', appending(() => ({k: ones(2, 2, 8)})),
   'a float32 tensor of rank 4, [B,Nnew,Hkv,D] for k, received float32 [2,2,8]'],
  ['int32 v', appending(() => ({v: tf.ones([2, 1, 2, 4], 'int32')})),
   'a float32 tensor of rank 4, [B,Nnew,Hkv,Dv] for v, received int32 [2,1,2,4]'],
  ['k of another batch', appending(() => ({k: ones(3, 1, 2, 8)})),
   'shape [2,1,2,8] for k, received float32 [3,1,2,8]'],
  ['k with the heads of q', appending(() => ({k: ones(2, 1, 4, 8)})),
   'shape [2,1,2,8] for k, received float32 [2,1,4,8]'],
  ['v of another length', appending(() => ({v: ones(2, 2, 2, 4)})),
   'shape [2,1,2,4] for v, received float32 [2,2,2,4]'],
  ['v of the size of k', appending(() => ({v: ones(2, 1, 2, 8)})),
   'shape [2,1,2,4] for v, received float32 [2,1,2,8]'],
  ['rotation without k', having(() => ({...tables(), cacheLengths: 3})),
   'new keys to rotate beside q for k, received undefined'],
  ['tables as wide as k', appending(() => ({rotaryCos: ones(10, 8), rotarySin: ones(10, 8)})),
   '[L,R/2] with R from 2 to the head size of q, 8 for rotaryCos, received float32 [10,8]'],
  ['tables that end before the cache', appending(() => ({rotaryCos: ones(3, 2), rotarySin: ones(3, 2)})),
   'an integer from 0 to 2 for cacheLengths, received 3'],
  ['more rows than the capacity', appending(() => ({k: ones(2, 7, 2, 8), v: ones(2, 7, 2, 4), cacheLengths: 0})),
   'at most 6 rows, the capacity of the cache, for k, received float32 [2,7,2,8]'],
  ['cosines alone', appending(() => ({rotaryCos: ones(10, 2)})),
   'both rotaryCos and rotarySin, or neither for rotarySin, received undefined'],
  ['sines alone', appending(() => ({rotarySin: ones(10, 2)})),
   'both rotaryCos and rotarySin, or neither for rotaryCos, received undefined'],
  ['interleaved as a number', appending(() => ({...tables(), rotaryInterleaved: 1})),
   'a boolean for rotaryInterleaved, received 1'],
];

/** A cache with two rows of each sequence. */
function cacheOf(config: Partial<KvCacheConfig> = {}): KvCache {
  const cache = new KvCache({batch: 2, capacity: 6, keyHeads: 2, headSize: 8, valueSize: 4, ...config});
  cache.attend(q(), {k: ones(2, 2, 2, 8), v: ones(2, 2, 2, 4)});
  return cache;
}

function disposedCache(): KvCache {
  const cache = cacheOf();
  cache.dispose();
  return cache;
}

const good = {batch: 2, capacity: 6, keyHeads: 2, headSize: 8};
const CONFIG = 'one of batch, capacity, keyHeads, headSize, valueSize, pageSize, pages for the name of an option';

const construction: Row[] = [
  ['no config', () => [], 'an object for options, received undefined'],
  ['an unknown name', () => [{...good, heads: 2}], `${CONFIG}, received 'heads'`],
  ['no batch', () => [{...good, batch: undefined}], 'an integer of at least 1 for batch, received undefined'],
  ['a capacity of 0', () => [{...good, capacity: 0}], 'an integer of at least 1 for capacity, received 0'],
  ['half a head', () => [{...good, keyHeads: 0.5}], 'an integer of at least 1 for keyHeads, received 0.5'],
  ['a NaN head size', () => [{...good, headSize: NaN}], 'an integer of at least 1 for headSize, received NaN'],
  ['a head size beyond the kernels', () => [{...good, headSize: 257}],
   'an integer from 1 to 256 for headSize, received 257'],
  ['a value size of null', () => [{...good, valueSize: null}], 'an integer of at least 1 for valueSize, received null'],
  ['a page size of 0', () => [{...good, pageSize: 0}], 'an integer of at least 1 for pageSize, received 0'],
  ['negative pages', () => [{...good, pageSize: 2, pages: -3}], 'an integer of at least 1 for pages, received -3'],
  ['pages without a page size', () => [{...good, pages: 3}], 'nothing without pageSize for pages, received 3'],
];

const attending: Row[] = [
  ['no q', () => [cacheOf()], 'a tensor or a nested array for q, received undefined'],
  ['lengths', () => [cacheOf(), q(), {cacheLengths: 2}], 'nothing (the cache knows it) for cacheLengths, received 2'],
  ['batches', () => [cacheOf(), q(), {cacheBatchIndex: [0, 1]}],
   'nothing (the cache knows it) for cacheBatchIndex, received [0,1]'],
  ['a table', () => [cacheOf({pageSize: 2}), q(), {blockTable: [[0], [1]]}],
   'nothing (the cache knows it) for blockTable, received [[0],[1]]'],
  ['options null', () => [cacheOf(), q(), null], 'an object for options, received null'],
  ['options a string', () => [cacheOf(), q(), 'causal'], 'an object for options, received \'causal\''],
  ['k null', () => [cacheOf(), q(), {k: null, v: null}], 'a tensor or a nested array for k, received null'],
  ['no q for fresh pages', () => [new KvCache({...good, pageSize: 2})],
   'a tensor or a nested array for q, received undefined'],
  ['another batch in q', () => [cacheOf(), ones(1, 1, 4, 8)],
   'the batch size of q, 1, or cacheBatchIndex for kCache, received float32 [2,6,2,8]'],
  ['k without v', () => [cacheOf(), q(), {k: ones(2, 1, 2, 8)}], 'both k and v, or neither for v, received undefined'],
  ['k a number', () => [cacheOf(), q(), {k: 1, v: 1}], 'a tensor or a nested array for k, received 1'],
  ['k and v of two lengths', () => [cacheOf(), q(), {k: ones(2, 2, 2, 8), v: ones(2, 1, 2, 4)}],
   'shape [2,2,2,4] for v, received float32 [2,1,2,4]'],
  ['rows beyond the capacity', () => [cacheOf(), q(), {k: ones(2, 5, 2, 8), v: ones(2, 5, 2, 4)}],
   'at most 6 rows in each sequence (capacity) for k, received \'7 rows in all\''],
  ['rows beyond the pages', () => [
    cacheOf({pageSize: 2, pages: 3}), q(), {k: ones(2, 1, 2, 8), v: ones(2, 1, 2, 4)},
  ], 'at most 1 more pages (pages) for k, received \'rows for 2\''],
  ['bad rows that would take the first pages', () => [
    new KvCache({...good, pageSize: 2}), q(), {k: ones(2, 1, 2, 8), v: ones(2, 1, 2, 4)},
  ], 'shape [2,1,2,8] for v, received float32 [2,1,2,4]'],
  ['a disposed cache', () => [disposedCache(), q()],
   'a cache that is not disposed for KvCache, received a disposed tensor'],
];

const LENGTH = 'an integer of at least 0, or 2 of them for length';

const truncating: Row[] = [
  ['a negative length', () => [cacheOf(), -1], `${LENGTH}, received -1`],
  ['half a length', () => [cacheOf(), 0.5], `${LENGTH}, received 0.5`],
  ['too few lengths', () => [cacheOf(), [1]], `${LENGTH}, received [1]`],
  ['a NaN length', () => [cacheOf(), [1, NaN]], `${LENGTH}, received [1,NaN]`],
  ['a tensor', () => [cacheOf(), integers(1, 1)], `${LENGTH}, received int32 [2]`],
  ['a disposed cache', () => [disposedCache(), 0],
   'a cache that is not disposed for KvCache, received a disposed tensor'],
];

/** Of attention over a cache. */
export const malformedCache: readonly MalformedCall[] = [
  ...malformedCalls('flashAttentionWithKvCache', flashAttentionWithKvCache,
      [...tensors, ...options, ...lengths, ...pages, ...newRows]),
  ...malformedCalls('KvCache', (config: KvCacheConfig) => new KvCache(config), construction),
  ...malformedCalls('KvCache.attend', (cache: KvCache, ...args: Parameters<KvCache['attend']>) => cache.attend(...args),
      attending),
  ...malformedCalls('KvCache.truncate', (cache: KvCache, length: number) => cache.truncate(length), truncating),
  ...malformedCalls('KvCache.k', (cache: KvCache) => cache.k,
      [['a disposed cache', () => [disposedCache()],
        'a cache that is not disposed for KvCache, received a disposed tensor']]),
];
