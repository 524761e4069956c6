import * as tf from '@tensorflow/tfjs';

import {
  alibiSlopes, applyRotaryEmbedding, dropoutKeepMask, flashAttention, flashAttentionKvPacked, flashAttentionQkvPacked,
  flashAttentionVarlen, flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked, flashAttentionVarlenWithLse,
  flashAttentionWithKvCache, flashAttentionWithLse, KvCache, mergeAttention, padInput, unpadInput,
} from '../../src/index.js';

import type {MigrationInputs} from './migration_inputs.js';

type Example = (inputs: MigrationInputs) => tf.Tensor[];

/**
 * The code of docs/MIGRATION.md, as functions that run, by the ids that its rows carry. What a row shows stands here to
 * the letter, and test/unit/migration.spec.ts holds the results to plain float64 arithmetic.
 */
export const MIGRATION_EXAMPLES: Record<string, Example> = {
  'fa-func': ({q, k, v}) => [flashAttention(q, k, v)],
  'fa-dropout': ({q, k, v}) => [flashAttention(q, k, v, {dropoutP: 0.25, seed: 7})],
  'fa-scale': ({q, k, v}) => [flashAttention(q, k, v, {softmaxScale: 0.2})],
  'fa-causal': ({q, k, v}) => [flashAttention(q, k, v, {causal: true})],
  'fa-window': ({q, k, v}) => [flashAttention(q, k, v, {windowSize: [2, 0]})],
  'fa-softcap': ({q, k, v}) => [flashAttention(q, k, v, {softcap: 5})],
  'fa-alibi': ({q, k, v, slopes}) => [flashAttention(q, k, v, {causal: true, alibiSlopes: slopes})],
  'fa-alibi-slopes': () => [alibiSlopes(12)],
  'fa-deterministic': ({q, k, v}) => [flashAttention(q, k, v, {deterministic: false})],
  'fa-dtype': ({q, k, v}) => [flashAttention(q, k, v, {computeType: 'bfloat16'})],
  'fa-lse': ({q, k, v}) => {
    const {output, lse} = flashAttentionWithLse(q, k, v);
    return [output, lse];
  },
  'fa-empty-row': ({q, fewK: k, fewV: v}) => {
    const {output, lse} = flashAttentionWithLse(q, k, v, {causal: true});
    return [output, lse];
  },
  'fa-keep-mask': () => {
    const shape = {batch: 2, queryHeads: 4, queryLength: 3, keyLength: 5};
    return [dropoutKeepMask(shape, 0.25, 7)];
  },
  'fa-qkv': ({qkv}) => [flashAttentionQkvPacked(qkv, {causal: true})],
  'fa-kv': ({q, kv}) => [flashAttentionKvPacked(q, kv, {causal: true})],
  'fa-varlen': ({rowsQ: q, rowsK: k, rowsV: v, cuSeqlensQ, cuSeqlensK}) =>
      [flashAttentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK, {causal: true})],
  'fa-varlen-lse': ({rowsQ: q, rowsK: k, rowsV: v, cuSeqlensQ, cuSeqlensK}) => {
    const {output, lse} = flashAttentionVarlenWithLse(q, k, v, cuSeqlensQ, cuSeqlensK);
    return [output, lse];
  },
  'fa-varlen-qkv': ({rowsQkv: qkv, cuSeqlensQ: cuSeqlens}) => [flashAttentionVarlenQkvPacked(qkv, cuSeqlens)],
  'fa-varlen-kv': ({rowsQ: q, rowsKv: kv, cuSeqlensQ, cuSeqlensK}) =>
      [flashAttentionVarlenKvPacked(q, kv, cuSeqlensQ, cuSeqlensK)],
  'fa-cache': ({q, kCache, vCache}) => [flashAttentionWithKvCache(q, kCache, vCache, {cacheLengths: [4, 6]})],
  'fa-cache-append': ({q, newK: k, newV: v, kCache, vCache}) => {
    const output = flashAttentionWithKvCache(q, kCache, vCache, {k, v, cacheLengths: [1, 3], causal: true});
    return [output, kCache, vCache];
  },
  'fa-cache-rotary': ({q, newK: k, newV: v, kCache, vCache, cos, sin}) => {
    const options = {k, v, cacheLengths: 2, causal: true, rotaryCos: cos, rotarySin: sin};
    return [flashAttentionWithKvCache(q, kCache, vCache, options), kCache];
  },
  'fa-cache-neox': ({q, newK: k, newV: v, kCache, vCache, cos, sin}) => {
    const options = {k, v, cacheLengths: 2, rotaryCos: cos, rotarySin: sin, rotaryInterleaved: false};
    return [flashAttentionWithKvCache(q, kCache, vCache, options), kCache];
  },
  'fa-cache-batch': ({q, pagesK: kCache, pagesV: vCache}) =>
      [flashAttentionWithKvCache(q, kCache, vCache, {cacheBatchIndex: [3, 1]})],
  'fa-cache-left-pad': ({q, kCache, vCache}) =>
      [flashAttentionWithKvCache(q, kCache, vCache, {cacheLengths: 5, cacheLeftPad: [2, 0]})],
  'fa-cache-pages': ({q, pagesK, pagesV}) =>
      [flashAttentionWithKvCache(q, pagesK, pagesV, {blockTable: [[2, 0], [1, 3]], cacheLengths: [5, 6]})],
  'fa-cache-scores': ({q, kCache, vCache, slopes}) => [flashAttentionWithKvCache(q, kCache, vCache, {
    softmaxScale: 0.2, causal: true, windowSize: [3, 0], softcap: 5, alibiSlopes: slopes,
  })],
  'fa-cache-splits': ({q, kCache, vCache}) => [flashAttentionWithKvCache(q, kCache, vCache, {numSplits: 2})],
  'fa-cache-lse': ({q, kCache, vCache}) => {
    const {output, lse} = flashAttentionWithLse(q, kCache, vCache, {keyLengths: [4, 6]});
    return [output, lse];
  },
  'fa-cache-object': ({q, newK: k, newV: v}) => {
    const cache = new KvCache({batch: 2, capacity: 6, keyHeads: 2, headSize: 8, valueSize: 6});
    const output = cache.attend(q, {k, v, causal: true});
    cache.dispose();
    return [output];
  },
  'fa-rotary': ({x, cos, sin}) => [applyRotaryEmbedding(x, cos, sin)],
  'fa-rotary-offsets': ({x, cos, sin}) => [applyRotaryEmbedding(x, cos, sin, {interleaved: true, offsets: [2, 0]})],
  'fa-unpad': ({x, keep: mask}) => {
    const {x: rows, indices, cuSeqlens, maxSeqlen} = unpadInput(x, mask);
    return [rows, tf.tensor1d(indices, 'int32'), tf.tensor1d(cuSeqlens, 'int32'), tf.scalar(maxSeqlen, 'int32')];
  },
  'fa-pad': ({x, keep}) => {
    const {x: rows, indices} = unpadInput(x, keep);
    return [padInput(rows, indices, 2, 3)];
  },

  'xf-func': ({q, k, v}) => [flashAttention(q, k, v)],
  'xf-rank-3': ({flatQ: q, flatK: k, flatV: v}) =>
      [tf.squeeze(flashAttention(tf.expandDims(q, 2), tf.expandDims(k, 2), tf.expandDims(v, 2)), [2])],
  'xf-p': ({q, k, v}) => [flashAttention(q, k, v, {dropoutP: 0.25, seed: 7})],
  'xf-scale': ({q, k, v}) => [flashAttention(q, k, v, {softmaxScale: 0.2})],
  'xf-lower-triangular': ({q, k, v}) => [flashAttention(q, k, v, {causal: true, causalAlignment: 'top-left'})],
  'xf-bottom-right': ({q, k, v}) => [flashAttention(q, k, v, {causal: true})],
  'xf-triangular-bias': ({q, k, v, bias}) =>
      [flashAttention(q, k, v, {causal: true, causalAlignment: 'top-left', bias})],
  'xf-local': ({q, k, v}) => [flashAttention(q, k, v, {windowSize: [1, 1]})],
  'xf-local-causal': ({q, k, v}) => {
    const window = 2;
    return [flashAttention(q, k, v, {windowSize: [window - 1, 0]})];
  },
  'xf-bias': ({q, k, v, bias}) => [flashAttention(q, k, v, {bias})],
  'xf-block-diagonal': ({rowsQ: q, rowsK: k, rowsV: v}) =>
      [flashAttentionVarlen(q, k, v, [0, 3, 7], [0, 4, 9])],
  'xf-block-causal': ({rowsQ: q, rowsK: k, rowsV: v, cuSeqlensQ, cuSeqlensK}) =>
      [flashAttentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK, {causal: true, causalAlignment: 'top-left'})],
  'xf-block-bottom-right': ({rowsQ: q, rowsK: k, rowsV: v, cuSeqlensQ, cuSeqlensK}) =>
      [flashAttentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK, {causal: true})],
  'xf-padded-keys': ({q, kCache, vCache}) =>
      [flashAttention(q, kCache, vCache, {keyLengths: [4, 6], causal: true})],
  'xf-lse': ({q, k, v}) => {
    const {output, lse} = flashAttentionWithLse(q, k, v);
    return [output, lse];
  },
  'xf-merge': ({q, k: k1, v: v1, fewK: k2, fewV: v2}) => {
    const parts = [flashAttentionWithLse(q, k1, v1), flashAttentionWithLse(q, k2, v2)];
    const {output, lse} = mergeAttention(parts);
    return [output, lse];
  },

  'pt-func': ({headsFirst: {q, k, v}}) => [flashAttention(q, k, v, {layout: 'bhnd'})],
  'pt-mask': ({headsFirst: {q, k, v}, mask}) => [flashAttention(q, k, v, {layout: 'bhnd', mask})],
  'pt-bias': ({headsFirst: {q, k, v}, bias}) => [flashAttention(q, k, v, {layout: 'bhnd', bias})],
  'pt-dropout': ({headsFirst: {q, k, v}}) => [flashAttention(q, k, v, {layout: 'bhnd', dropoutP: 0.25, seed: 7})],
  'pt-causal': ({headsFirst: {q, k, v}}) =>
      [flashAttention(q, k, v, {layout: 'bhnd', causal: true, causalAlignment: 'top-left'})],
  'pt-scale': ({headsFirst: {q, k, v}}) => [flashAttention(q, k, v, {layout: 'bhnd', softmaxScale: 0.2})],
  'pt-gqa': ({headsFirst: {q, k, v}}) => {
    const groups = q.shape[1] / k.shape[1];
    return [flashAttention(q, k, v, {layout: 'bhnd'}), tf.scalar(groups)];
  },
  'pt-upper-left': ({headsFirst: {q, k, v}}) =>
      [flashAttention(q, k, v, {layout: 'bhnd', causal: true, causalAlignment: 'top-left'})],
  'pt-lower-right': ({headsFirst: {q, fewK: k, fewV: v}}) =>
      [flashAttention(q, k, v, {layout: 'bhnd', causal: true})],
  'pt-lse': ({headsFirst: {q, k, v}}) => {
    const {output, lse} = flashAttentionWithLse(q, k, v, {layout: 'bhnd'});
    return [output, lse];
  },
  'pt-nested': ({rowsQ: q, rowsK: k, rowsV: v, cuSeqlensQ, cuSeqlensK}) =>
      [flashAttentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK)],
};
