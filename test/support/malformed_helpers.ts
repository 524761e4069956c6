import * as tf from '@tensorflow/tfjs';

import {
  alibiSlopes, applyRotaryEmbedding, dropoutKeepMask, mergeAttention, padInput, unpadInput,
} from '../../src/index.js';

import {disposed, integers, malformedCalls, ones, unreadable} from './malformed_call.js';
import type {MalformedCall, Row} from './malformed_call.js';

const MASK = 'a bool or int32 tensor or an array of shape [B,N] = [2,3] for mask';
const mask = [[1, 0, 1], [0, 0, 1]];

const unpadding: Row[] = [
  ['no x', () => [undefined, mask], 'a tensor or a nested array for x, received undefined'],
  ['x of rank 1', () => [ones(3), mask], 'a float32 or int32 tensor [B,N,...] for x, received float32 [3]'],
  ['a bool x', () => [tf.ones([2, 3], 'bool'), mask],
   'a float32 or int32 tensor [B,N,...] for x, received bool [2,3]'],
  ['a disposed x', () => [disposed(2, 3), mask], 'a tensor that is not disposed for x, received a disposed tensor'],
  ['no mask', () => [ones(2, 3, 4)], `${MASK}, received undefined`],
  ['a mask of another length', () => [ones(2, 3, 4), [[1, 1, 1], [1, 1]]], `${MASK}, received [[1,1,1],[1,1]]`],
  ['a flat mask', () => [ones(2, 3, 4), Uint8Array.of(1, 1, 1, 1, 1, 1)], `${MASK}, received Uint8Array`],
  ['a float32 mask', () => [ones(2, 3, 4), ones(2, 3)], `${MASK}, received float32 [2,3]`],
  ['a mask tensor of another shape', () => [ones(2, 3, 4), tf.ones([3, 2], 'bool')], `${MASK}, received bool [3,2]`],
  ['a disposed mask', () => [ones(2, 3, 4), disposed(2, 3)], `${MASK}, received a disposed tensor`],
  ['a mask that cannot be read', () => [ones(2, 3, 4), unreadable(tf.ones([2, 3], 'bool'))],
   'a mask that can be read on the host, such as an array (pass `await mask.array()`), for mask, received bool [2,3]'],
  ['lengths in the mask', () => [ones(2, 3, 4), [[2, 1, 0], [0, 0, 0]]],
   'booleans, or 1 and 0, for the values of mask, received 2'],
  ['a NaN in the mask', () => [ones(2, 3, 4), [[1, NaN, 0], [0, 0, 0]]],
   'booleans, or 1 and 0, for the values of mask, received NaN'],
];

const INDICES = 'different integers from 0 to B·N − 1 = 5 for indices';

const padding: Row[] = [
  ['no x', () => [undefined, [0], 1, 1], 'a tensor or a nested array for x, received undefined'],
  ['a scalar x', () => [tf.scalar(1), [0], 1, 1], 'a float32 or int32 tensor [T,...] for x, received float32 []'],
  ['no indices', () => [ones(3, 4), undefined, 2, 3],
   'an array of 3 integers, one for each row of x, for indices, received undefined'],
  ['a tensor of indices', () => [ones(3, 4), integers(0, 1, 2), 2, 3],
   'an array of 3 integers, one for each row of x, for indices, received int32 [3]'],
  ['too few indices', () => [ones(3, 4), Int32Array.of(0, 1), 2, 3],
   'an array of 3 integers, one for each row of x, for indices, received Int32Array'],
  ['an index beyond the rows', () => [ones(3, 4), [0, 1, 6], 2, 3], `${INDICES}, received 6`],
  ['a negative index', () => [ones(3, 4), [0, -1, 2], 2, 3], `${INDICES}, received -1`],
  ['a NaN index', () => [ones(3, 4), [0, NaN, 2], 2, 3], `${INDICES}, received NaN`],
  ['an index given twice', () => [ones(3, 4), [0, 2, 2], 2, 3], `${INDICES}, received [0,2,2]`],
  ['no batch', () => [ones(3, 4), [0, 1, 2]], 'an integer of at least 0 for batch, received undefined'],
  ['a negative length', () => [ones(3, 4), [0, 1, 2], 2, -3], 'an integer of at least 0 for length, received -3'],
];

const output = () => ones(2, 3, 4, 5); // [B,N,H,Dv]
const lse = () => ones(2, 4, 3); // [B,H,N]

const merging: Row[] = [
  ['no parts', () => [], 'an array of at least one part for parts, received undefined'],
  ['an empty list', () => [[]], 'an array of at least one part for parts, received []'],
  ['one part without a list', () => [{output: output(), lse: lse()}],
   'an array of at least one part for parts, received an object with keys [output,lse]'],
  ['a part of null', () => [[{output: output(), lse: lse()}, null]],
   'an object with output and lse for parts[1], received null'],
  ['outputs alone', () => [[output(), output()]],
   'a tensor or a nested array for parts[0].output, received undefined'],
  ['a part without an LSE', () => [[{output: output(), lse: lse()}, {output: output()}]],
   'a tensor or a nested array for parts[1].lse, received undefined'],
  ['an int32 output', () => [[{output: tf.ones([2, 3, 4, 5], 'int32'), lse: lse()}]],
   'a float32 tensor, [B,N,H,Dv] or [T,H,Dv] for parts[0].output, received int32 [2,3,4,5]'],
  ['an output of rank 2, heads first', () => [[{output: ones(4, 5), lse: lse()}], {layout: 'bhnd'}],
   'a float32 tensor, [B,H,N,Dv] or [T,H,Dv] for parts[0].output, received float32 [4,5]'],
  ['outputs of two shapes', () => [[{output: output(), lse: lse()}, {output: ones(2, 4, 4, 5), lse: lse()}]],
   'the shape of parts[0].output, [2,3,4,5] for parts[1].output, received float32 [2,4,4,5]'],
  ['an LSE in the order of the output', () => [[{output: output(), lse: ones(2, 3, 4)}]],
   'a float32 tensor [B,H,N] = [2,4,3] for parts[0].lse, received float32 [2,3,4]'],
  ['an LSE that does not belong to [T,H,Dv]', () => [[{output: ones(3, 4, 5), lse: ones(3, 4)}]],
   'a float32 tensor [H,T] = [4,3] for parts[0].lse, received float32 [3,4]'],
  ['a disposed LSE', () => [[{output: output(), lse: disposed(2, 4, 3)}]],
   'a tensor that is not disposed for parts[0].lse, received a disposed tensor'],
  ['a layout of rank 3', () => [[{output: output(), lse: lse()}], {layout: 'thd'}],
   'one of \'bnhd\', \'bhnd\' for layout, received \'thd\''],
  ['another option', () => [[{output: output(), lse: lse()}], {axis: 1}],
   'one of layout for the name of an option, received \'axis\''],
];

const x = () => ones(2, 3, 2, 8); // [B,N,H,D]
const table = () => ones(9, 4); // [L,R/2]
/** A good x and good tables with these options. */
const having = (options: () => unknown) => () => [x(), table(), table(), options()];

const rotating: Row[] = [
  ['x of rank 3', () => [ones(3, 2, 8), table(), table()],
   'a float32 tensor of rank 4, [B,N,H,D] for x, received float32 [3,2,8]'],
  ['x of rank 3, heads first', () => [ones(2, 3, 8), table(), table(), {layout: 'bhnd'}],
   'a float32 tensor of rank 4, [B,H,N,D] for x, received float32 [2,3,8]'],
  ['int32 x', () => [tf.ones([2, 3, 2, 8], 'int32'), table(), table()],
   'a float32 tensor of rank 4, [B,N,H,D] for x, received int32 [2,3,2,8]'],
  ['cosines of rank 3', () => [x(), ones(2, 9, 4), table()],
   'a float32 tensor of rank 2, [L,R/2] for cos, received float32 [2,9,4]'],
  ['no sines', () => [x(), table()], 'a tensor or a nested array for sin, received undefined'],
  ['tables of R and not R/2', () => [x(), ones(9, 8), ones(9, 8)],
   '[L,R/2] with R from 2 to the head size of x, 8 for cos, received float32 [9,8]'],
  ['an odd head size that R exceeds', () => [ones(2, 3, 2, 7), table(), table()],
   '[L,R/2] with R from 2 to the head size of x, 7 for cos, received float32 [9,4]'],
  ['tables without columns', () => [x(), ones(9, 0), ones(9, 0)],
   '[L,R/2] with R from 2 to the head size of x, 8 for cos, received float32 [9,0]'],
  ['sines of another shape', () => [x(), table(), ones(9, 3)],
   'the shape of cos, [9,4] for sin, received float32 [9,3]'],
  ['tables shorter than x', () => [x(), ones(2, 4), ones(2, 4)],
   '[L,R/2] with a row for each position, at least 3 for cos, received float32 [2,4]'],
  ['tables shorter than x, heads first', () => [ones(2, 2, 10, 8), table(), table(), {layout: 'bhnd'}],
   '[L,R/2] with a row for each position, at least 10 for cos, received float32 [9,4]'],
  ['an offset beyond the tables', having(() => ({offsets: 7})), 'an integer from 0 to 6 for offsets, received 7'],
  ['a null offset', having(() => ({offsets: null})),
   'an int32 tensor or an array of shape [B] = [2] for offsets, received null'],
  ['a NaN offset', having(() => ({offsets: NaN})), 'an integer from 0 to 6 for offsets, received NaN'],
  ['an array with an offset beyond the tables', having(() => ({offsets: [0, 7]})),
   '2 integers from 0 to 6 for offsets, received [0,7]'],
  ['too many offsets', having(() => ({offsets: [0, 1, 2]})), '2 integers from 0 to 6 for offsets, received [0,1,2]'],
  ['float32 offsets', having(() => ({offsets: ones(2)})),
   'an int32 tensor or an array of shape [B] = [2] for offsets, received float32 [2]'],
  ['interleaved as a string', having(() => ({interleaved: 'yes'})), 'a boolean for interleaved, received \'yes\''],
  ['another option', having(() => ({seqlenOffsets: 1})),
   'one of interleaved, layout, offsets for the name of an option, received \'seqlenOffsets\''],
];

const HEADS = 'an integer of at least 1 for heads';

const slopes: Row[] = [
  ['no heads', () => [], `${HEADS}, received undefined`],
  ['0 heads', () => [0], `${HEADS}, received 0`],
  ['half a head', () => [1.5], `${HEADS}, received 1.5`],
  ['NaN heads', () => [NaN], `${HEADS}, received NaN`],
  ['heads in words', () => ['8'], `${HEADS}, received '8'`],
];

const shape = {batch: 1, queryHeads: 2, queryLength: 3, keyLength: 4};

const dropout: Row[] = [
  ['no shape', () => [undefined, 0.5, 1],
   'an object with batch, queryHeads, queryLength, keyLength for the shape, received undefined'],
  ['a shape in a list', () => [[1, 2, 3, 4], 0.5, 1], 'an integer of at least 0 for batch, received undefined'],
  ['a missing axis', () => [{...shape, keyLength: undefined}, 0.5, 1],
   'an integer of at least 0 for keyLength, received undefined'],
  ['a negative axis', () => [{...shape, queryHeads: -2}, 0.5, 1],
   'an integer of at least 0 for queryHeads, received -2'],
  ['p of 1', () => [shape, 1, 1], 'a probability in [0, 1) for dropoutP, received 1'],
  ['p of NaN', () => [shape, NaN, 1], 'a probability in [0, 1) for dropoutP, received NaN'],
  ['no seed', () => [shape, 0.5], 'an integer in [0, 2^53) for seed, received undefined'],
  ['a seed of 2⁵³', () => [shape, 0.5, 2 ** 53], 'an integer in [0, 2^53) for seed, received 9007199254740992'],
];

/** Of what goes with attention. */
export const malformedHelpers: readonly MalformedCall[] = [
  ...malformedCalls('unpadInput', unpadInput, unpadding),
  ...malformedCalls('padInput', padInput, padding),
  ...malformedCalls('mergeAttention', mergeAttention, merging),
  ...malformedCalls('applyRotaryEmbedding', applyRotaryEmbedding, rotating),
  ...malformedCalls('alibiSlopes', alibiSlopes, slopes),
  ...malformedCalls('dropoutKeepMask', dropoutKeepMask, dropout),
];
