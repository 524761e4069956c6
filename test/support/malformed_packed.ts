import * as tf from '@tensorflow/tfjs';

import {
  flashAttentionKvPacked, flashAttentionKvPackedWithLse, flashAttentionQkvPacked, flashAttentionQkvPackedWithLse,
  flashAttentionVarlen, flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked, flashAttentionVarlenWithLse,
} from '../../src/index.js';

import {disposed, integers, malformedCalls, ones, unreadable} from './malformed_call.js';
import type {MalformedCall, Row} from './malformed_call.js';

const qkvPacked: Row[] = [
  ['no qkv', () => [], 'a tensor or a nested array for qkv, received undefined'],
  ['q, k and v apart', () => [ones(2, 3, 4, 8), ones(2, 3, 4, 8), ones(2, 3, 4, 8)],
   'an object for options, received float32 [2,3,4,8]'],
  ['qkv of rank 4', () => [ones(2, 5, 12, 8)],
   'a float32 tensor of rank 5, [B,N,3,H,D] for qkv, received float32 [2,5,12,8]'],
  ['int32 qkv', () => [tf.ones([2, 5, 3, 4, 8], 'int32')],
   'a float32 tensor of rank 5, [B,N,3,H,D] for qkv, received int32 [2,5,3,4,8]'],
  ['heads before q, k and v', () => [ones(2, 5, 4, 3, 8)],
   'an axis of 3 (q, k and v) before the heads for qkv, received float32 [2,5,4,3,8]'],
  ['a head size of 257', () => [ones(1, 1, 3, 1, 257)],
   'a head size from 1 to 256 (last axis) for qkv, received [1,1,3,1,257]'],
  ['no heads', () => [ones(1, 1, 3, 0, 8)],
   'a number of heads that divides the 0 of q (layout \'bnhd\') for qkv, received [1,1,3,0,8]'],
  ['a disposed qkv', () => [disposed(2, 5, 3, 4, 8)],
   'a tensor that is not disposed for qkv, received a disposed tensor'],
  ['a layout', () => [ones(2, 5, 3, 4, 8), {layout: 'bhnd'}],
   'one of causal, causalAlignment, windowSize, softmaxScale, softcap, alibiSlopes, sinks, dropoutP, seed, ' +
   'computeType, deterministic, bias, mask, queryLengths, keyLengths for the name of an option, received \'layout\''],
  ['a bias of another length', () => [ones(2, 5, 3, 4, 8), {bias: ones(4, 5)}],
   'a shape that broadcasts to [B,Hq,Nq,Nk] = [2,4,5,5] for bias, received [1,1,4,5]'],
  ['a length beyond the keys', () => [ones(2, 5, 3, 4, 8), {keyLengths: [5, 6]}],
   '2 integers from 0 to 5 for keyLengths, received [5,6]'],
];

const kvPacked: Row[] = [
  ['no kv', () => [ones(2, 3, 4, 8)], 'a tensor or a nested array for kv, received undefined'],
  ['kv of rank 4', () => [ones(2, 3, 4, 8), ones(2, 5, 4, 8)],
   'a float32 tensor of rank 5, [B,Nk,2,Hkv,D] for kv, received float32 [2,5,4,8]'],
  ['qkv for kv', () => [ones(2, 3, 4, 8), ones(2, 5, 3, 4, 8)],
   'an axis of 2 (k and v) before the heads for kv, received float32 [2,5,3,4,8]'],
  ['another batch in kv', () => [ones(2, 3, 4, 8), ones(3, 5, 2, 2, 8)],
   'the batch size of q, 2 for kv, received [3,5,2,2,8]'],
  ['another head size in kv', () => [ones(2, 3, 4, 8), ones(2, 5, 2, 2, 6)],
   'the head size of q, 8 (last axis) for kv, received [2,5,2,2,6]'],
  ['heads that do not divide', () => [ones(2, 3, 4, 8), ones(2, 5, 2, 3, 8)],
   'a number of heads that divides the 4 of q (layout \'bnhd\') for kv, received [2,5,2,3,8]'],
  ['a window of NaN', () => [ones(2, 3, 4, 8), ones(2, 5, 2, 2, 8), {windowSize: [0, NaN]}],
   '[left, right], two integers of at least −1 for windowSize, received [0,NaN]'],
];

const q = () => ones(7, 4, 8); // Tq 7, Hq 4, D 8
const k = () => ones(9, 2, 8); // Tk 9, Hkv 2
const v = () => ones(9, 2, 6); // Dv 6
const Q = [0, 3, 7];
const K = [0, 4, 9];

const OFFSETS = 'an int32 tensor or an array of shape [B+1]';
const UNSUPPORTED = 'for the options of varlen attention';
const NO_ROWS = 'sequences of different lengths have no common rows and columns; use queryLengths with flashAttention';

/** Good tensors and offsets with these options. */
const having = (options: () => unknown) => () => [q(), k(), v(), Q, K, options()];

const varlen: Row[] = [
  ['q of rank 4', () => [ones(1, 7, 4, 8), k(), v(), Q, K],
   'a float32 tensor of rank 3, [Tq,Hq,D] for q, received float32 [1,7,4,8]'],
  ['k of rank 2', () => [q(), ones(9, 16), v(), Q, K],
   'a float32 tensor of rank 3, [Tk,Hkv,D] for k, received float32 [9,16]'],
  ['bool v', () => [q(), k(), tf.ones([9, 2, 6], 'bool'), Q, K],
   'a float32 tensor of rank 3, [Tk,Hkv,Dv] for v, received bool [9,2,6]'],
  ['another head size in k', () => [q(), ones(9, 2, 6), v(), Q, K],
   'the head size of q, 8 (last axis) for k, received [9,2,6]'],
  ['another length in v', () => [q(), k(), ones(8, 2, 6), Q, K],
   'the length of k, 9 (layout \'thd\') for v, received [8,2,6]'],
  ['no offsets', () => [q(), k(), v()], `${OFFSETS} for cuSeqlensQ, received undefined`],
  ['lengths of one number', () => [q(), k(), v(), 7, 9], `${OFFSETS} for cuSeqlensQ, received 7`],
  ['options in the place of offsets', () => [q(), k(), v(), Q, {causal: true}],
   `${OFFSETS} for cuSeqlensK, received an object with keys [causal]`],
  ['float32 offsets', () => [q(), k(), v(), tf.tensor1d(Q), K], `${OFFSETS} for cuSeqlensQ, received float32 [3]`],
  ['offsets of rank 2', () => [q(), k(), v(), Q, tf.tensor2d([K], undefined, 'int32')],
   `${OFFSETS} for cuSeqlensK, received int32 [1,3]`],
  ['disposed offsets', () => [q(), k(), v(), disposed(3), K], `${OFFSETS} for cuSeqlensQ, received a disposed tensor`],
  ['offsets that cannot be read', () => [q(), k(), v(), unreadable(integers(...Q)), K],
   'offsets that can be read on the host (pass `await offsets.array()`) for cuSeqlensQ, received int32 [3]'],
  ['empty offsets', () => [q(), k(), v(), [], K], 'at least 2 integers, [B+1] for cuSeqlensQ, received []'],
  ['a single offset', () => [q(), k(), v(), [0], K], 'at least 2 integers, [B+1] for cuSeqlensQ, received [0]'],
  ['half an offset', () => [q(), k(), v(), [0, 2.5, 7], K],
   'at least 2 integers, [B+1] for cuSeqlensQ, received [0,2.5,7]'],
  ['a NaN offset', () => [q(), k(), v(), Q, [0, NaN, 9]],
   'at least 2 integers, [B+1] for cuSeqlensK, received [0,NaN,9]'],
  ['nested offsets', () => [q(), k(), v(), [Q], K], 'at least 2 integers, [B+1] for cuSeqlensQ, received [[0,3,7]]'],
  ['decreasing offsets', () => [q(), k(), v(), [0, 5, 3, 7], K],
   'offsets that never decrease for cuSeqlensQ, received [5,3]'],
  ['a decreasing tensor of offsets', () => [q(), k(), v(), Q, integers(0, 9, 4)],
   'offsets that never decrease for cuSeqlensK, received [9,4]'],
  ['offsets that begin late', () => [q(), k(), v(), [1, 3, 7], K],
   'offsets from 0 to the number of rows, 7 for cuSeqlensQ, received [1,7]'],
  ['negative offsets', () => [q(), k(), v(), [-1, 3, 7], K],
   'offsets from 0 to the number of rows, 7 for cuSeqlensQ, received [-1,7]'],
  ['offsets that end early', () => [q(), k(), v(), Q, [0, 4, 8]],
   'offsets from 0 to the number of rows, 9 for cuSeqlensK, received [0,8]'],
  ['offsets beyond the total', () => [q(), k(), v(), Q, Int32Array.of(0, 4, 10)],
   'offsets from 0 to the number of rows, 9 for cuSeqlensK, received [0,10]'],
  ['lengths in the place of offsets', () => [q(), k(), v(), [3, 4], K],
   'offsets from 0 to the number of rows, 7 for cuSeqlensQ, received [3,4]'],
  ['fewer sequences of keys', () => [q(), k(), v(), Q, [0, 9]],
   'as many offsets as cuSeqlensQ, 3 for cuSeqlensK, received [0,9]'],
  ['a mask', having(() => ({mask: tf.ones([7, 9], 'bool')})),
   `no mask: ${NO_ROWS} ${UNSUPPORTED}, received bool [7,9]`],
  ['a bias', having(() => ({bias: ones(7, 9)})), `no bias: ${NO_ROWS} ${UNSUPPORTED}, received float32 [7,9]`],
  ['lengths of queries', having(() => ({queryLengths: [3, 4]})),
   `no queryLengths: cuSeqlensQ gives the lengths ${UNSUPPORTED}, received [3,4]`],
  ['lengths of keys', having(() => ({keyLengths: [3, 4]})),
   `no keyLengths: cuSeqlensK gives the lengths ${UNSUPPORTED}, received [3,4]`],
  ['flash_attn\'s longest length', having(() => 4), 'an object for options, received 4'],
  ['options null', having(() => null), 'an object for options, received null'],
  ['an option by the name of what every object has', having(() => ({constructor: 1})),
   'one of causal, causalAlignment, windowSize, softmaxScale, softcap, alibiSlopes, sinks, dropoutP, seed, ' +
   'computeType, deterministic for the name of an option, received \'constructor\''],
  ['a layout', having(() => ({layout: 'thd'})),
   'one of causal, causalAlignment, windowSize, softmaxScale, softcap, alibiSlopes, sinks, dropoutP, seed, ' +
   'computeType, deterministic for the name of an option, received \'layout\''],
  ['slopes of another batch', having(() => ({alibiSlopes: ones(3, 4)})),
   'shape [Hq] = [4] or [B,Hq] = [2,4] for alibiSlopes, received [3,4]'],
  ['sinks of the key heads', having(() => ({sinks: [1, 2]})), 'shape [Hq] = [4] for sinks, received [2]'],
  ['a dropout of 2', having(() => ({dropoutP: 2})), 'a probability in [0, 1) for dropoutP, received 2'],
];

const varlenQkvPacked: Row[] = [
  ['qkv of rank 3', () => [ones(7, 12, 8), Q],
   'a float32 tensor of rank 4, [T,3,H,D] for qkv, received float32 [7,12,8]'],
  ['kv for qkv', () => [ones(7, 2, 4, 8), Q],
   'an axis of 3 (q, k and v) before the heads for qkv, received float32 [7,2,4,8]'],
  ['no offsets', () => [ones(7, 3, 4, 8)], `${OFFSETS} for cuSeqlens, received undefined`],
  ['offsets that end early', () => [ones(7, 3, 4, 8), [0, 3, 6]],
   'offsets from 0 to the number of rows, 7 for cuSeqlens, received [0,6]'],
  ['a mask', () => [ones(7, 3, 4, 8), Q, {mask: [[true]]}],
   `no mask: ${NO_ROWS} ${UNSUPPORTED}, received [[true]]`],
];

const varlenKvPacked: Row[] = [
  ['q for kv', () => [q(), k(), Q, K],
   'a float32 tensor of rank 4, [Tk,2,Hkv,D] for kv, received float32 [9,2,8]'],
  ['qkv for kv', () => [q(), ones(9, 3, 2, 8), Q, K],
   'an axis of 2 (k and v) before the heads for kv, received float32 [9,3,2,8]'],
  ['offsets of q for both', () => [q(), ones(9, 2, 2, 8), Q, Q],
   'offsets from 0 to the number of rows, 9 for cuSeqlensK, received [0,7]'],
  ['int32 q', () => [tf.ones([7, 4, 8], 'int32'), ones(9, 2, 2, 8), Q, K],
   'a float32 tensor of rank 3, [Tq,Hq,D] for q, received int32 [7,4,8]'],
];

/** Of attention over packed tensors and over sequences end to end. */
export const malformedPacked: readonly MalformedCall[] = [
  ...malformedCalls('flashAttentionQkvPacked', flashAttentionQkvPacked, qkvPacked),
  ...malformedCalls('flashAttentionQkvPackedWithLse', flashAttentionQkvPackedWithLse, qkvPacked.slice(0, 1)),
  ...malformedCalls('flashAttentionKvPacked', flashAttentionKvPacked, kvPacked),
  ...malformedCalls('flashAttentionKvPackedWithLse', flashAttentionKvPackedWithLse, kvPacked.slice(0, 1)),
  ...malformedCalls('flashAttentionVarlen', flashAttentionVarlen, varlen),
  ...malformedCalls('flashAttentionVarlenWithLse', flashAttentionVarlenWithLse, varlen.slice(0, 1)),
  ...malformedCalls('flashAttentionVarlenQkvPacked', flashAttentionVarlenQkvPacked, varlenQkvPacked),
  ...malformedCalls('flashAttentionVarlenKvPacked', flashAttentionVarlenKvPacked, varlenKvPacked),
];
