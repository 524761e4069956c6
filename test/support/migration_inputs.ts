import * as tf from '@tensorflow/tfjs';

import {Random} from './random.js';

/** Tensors for the examples of docs/MIGRATION.md, and what is in them for the spec that computes the same plainly. */
export function migrationInputs() {
  let seed = 0;
  const normal = <R extends tf.Rank>(...shape: number[]) =>
      tf.tensor<R>(new Random(++seed).normals(tf.util.sizeFromShape(shape)), shape as tf.ShapeMap[R]);
  const rank4 = (...shape: number[]) => normal<tf.Rank.R4>(...shape);
  const rank3 = (...shape: number[]) => normal<tf.Rank.R3>(...shape);
  const angles = normal(8, 3); // 8 positions, R 6
  const [q, k, v] = [rank4(2, 3, 4, 8), rank4(2, 5, 2, 8), rank4(2, 5, 2, 6)];
  const [fewK, fewV] = [rank4(2, 2, 2, 8), rank4(2, 2, 2, 6)];
  const headsFirst = (t: tf.Tensor4D) => tf.transpose(t, [0, 2, 1, 3]);
  return {
    q, k, v, fewK, fewV,
    headsFirst: {
      q: headsFirst(q), k: headsFirst(k), v: headsFirst(v), fewK: headsFirst(fewK), fewV: headsFirst(fewV),
    },
    flatQ: rank3(2, 3, 8), flatK: rank3(2, 5, 8), flatV: rank3(2, 5, 6),
    qkv: normal<tf.Rank.R5>(2, 5, 3, 4, 8), kv: normal<tf.Rank.R5>(2, 5, 2, 2, 8),
    rowsQ: rank3(7, 4, 8), rowsK: rank3(9, 2, 8), rowsV: rank3(9, 2, 6),
    rowsQkv: rank4(7, 3, 4, 8), rowsKv: rank4(9, 2, 2, 8),
    cuSeqlensQ: [0, 3, 7], cuSeqlensK: [0, 4, 9],
    kCache: rank4(2, 6, 2, 8), vCache: rank4(2, 6, 2, 6), newK: rank4(2, 3, 2, 8), newV: rank4(2, 3, 2, 6),
    pagesK: rank4(4, 3, 2, 8), pagesV: rank4(4, 3, 2, 6),
    bias: rank4(1, 4, 3, 5),
    // The second query of the first batch sees nothing.
    mask: tf.tensor4d(Array.from({length: 30}, (_, n) => n < 5 || n > 9 && n % 4 !== 0), [2, 1, 3, 5], 'bool'),
    slopes: tf.tensor1d([0.5, 0.25, 0.125, 1]),
    x: rank4(2, 3, 2, 8), cos: tf.cos<tf.Tensor2D>(angles as tf.Tensor2D), sin: tf.sin(angles as tf.Tensor2D),
    keep: [[true, false, true], [false, false, true]],
  };
}

export type MigrationInputs = ReturnType<typeof migrationInputs>;
