import type {MaskSpec, Row} from './case.js';

const SIZES = [1, 3, 17, 63, 64, 65, 127, 200];
const HEAD_SIZES = [1, 3, 8, 40, 64, 72, 96, 128, 192, 256];

/** Shapes, head sizes, masks, dropout, NaN and ∞, with and without causal masks. */
export function basicRows(): Row[] {
  const table: Row[] = [];
  const add = (row: Row) => table.push(row);
  for (const n of SIZES) {
    add({queryLength: n, keyLength: n, headSize: 64});
    add({queryLength: n, keyLength: n, headSize: 64, causal: true});
  }
  for (const [queryLength, keyLength] of [[1, 200], [17, 127], [63, 200], [65, 64], [200, 17], [127, 1], [3, 64]]) {
    add({queryLength, keyLength, headSize: 40});
    add({queryLength, keyLength, headSize: 40, causal: true});
    add({queryLength, keyLength, headSize: 40, causal: true, causalAlignment: 'top-left'});
  }
  for (const headSize of HEAD_SIZES) {
    add({queryLength: 65, keyLength: 127, headSize, causal: true});
    add({queryLength: 70, keyLength: 33, headSize, layout: 'bhnd'});
  }
  for (const [headSize, valueSize] of [[64, 32], [32, 64], [3, 8], [96, 5], [128, 256], [256, 64]]) {
    add({queryLength: 65, keyLength: 66, headSize, valueSize, causal: true});
  }
  for (const [queryHeads, keyHeads] of [[2, 1], [4, 2], [6, 2], [8, 1]]) {
    add({queryLength: 65, keyLength: 80, queryHeads, keyHeads, headSize: 32, causal: true, batch: 2});
    add({queryLength: 33, keyLength: 129, queryHeads, keyHeads, headSize: 24, layout: 'bhnd', batch: 2});
  }
  add({queryLength: 17, keyLength: 19, queryHeads: 16, keyHeads: 16, batch: 8, headSize: 16});
  add({queryLength: 64, keyLength: 64, headSize: 64, softmaxScale: 1});
  add({queryLength: 64, keyLength: 64, headSize: 64, softmaxScale: -0.3, causal: true});
  for (const causal of [false, true]) {
    add({queryLength: 70, keyLength: 130, headSize: 64, values: 'large', causal});
    add({queryLength: 130, keyLength: 70, headSize: 36, values: 'large', causal, layout: 'bhnd'});
    add({queryLength: 70, keyLength: 130, headSize: 20, values: 'nan', causal});
    add({queryLength: 130, keyLength: 70, headSize: 64, values: 'nan', causal, queryHeads: 4, keyHeads: 2});
    add({queryLength: 70, keyLength: 130, headSize: 20, values: 'infinite', causal});
    add({queryLength: 130, keyLength: 70, headSize: 64, values: 'infinite', causal, queryHeads: 4, keyHeads: 2});
  }
  const masks: Array<[MaskSpec['shape'], number]> = [
    [[1, 1, 1, 130], 0.5], [[2, 1, 1, 130], 0.3], [[1, 1, 70, 1], 0.4], [[2, 4, 70, 130], 0.5],
    [[1, 4, 70, 130], 0.97], [[1, 1, 1, 1], 1], [[1, 1, 1, 1], 0],
  ];
  for (const [shape, hidden] of masks) {
    const mask = {queryLength: 70, keyLength: 130, queryHeads: 4, keyHeads: 2, batch: 2, headSize: 16};
    add({...mask, maskSpec: {shape, hidden}});
    add({...mask, maskSpec: {shape, hidden}, causal: true, values: hidden === 0.5 ? 'nan' : 'normal'});
  }
  add({queryLength: 65, keyLength: 70, headSize: 32, dropoutP: 0.3, seed: 1234567890123, queryHeads: 4, keyHeads: 2});
  add({queryLength: 90, keyLength: 67, headSize: 13, dropoutP: 0.9, seed: 7, causal: true, batch: 2, layout: 'bhnd'});
  return table;
}
