import * as tf from '@tensorflow/tfjs';

import type {Batch} from './batches.js';
import {withGradient} from './custom_gradient.js';
import {oneHotRows} from './one_hot.js';

/** Mean cross-entropy in nats of logits [R,C] against one-hot rows [R,C]; gradient for the logits only. */
const crossEntropy = withGradient(([logits, labels], save) => {
  const rows = logits.shape[0];
  const max = tf.max(logits, -1, true);
  const shifted = tf.sub(logits, max);
  const exponentials = tf.exp(shifted);
  const sums = tf.sum(exponentials, -1, true);
  const logLikelihood = tf.sub(tf.sum(tf.mul(shifted, labels), -1, true), tf.log(sums));
  save([exponentials, sums, labels]);
  return {
    value: tf.neg(tf.mean(logLikelihood)),
    gradient: (dy, [exponentials, sums, labels]) => {
      const dLogits = tf.mul(tf.sub(tf.div(exponentials, sums), labels), tf.div(dy, rows));
      return [dLogits, tf.zerosLike(labels)];
    },
  };
});

/** Mean loss of a batch, a scalar, in nats per symbol. */
export function batchLoss(model: tf.LayersModel, batch: Batch, training: boolean): tf.Scalar {
  return tf.tidy(() => {
    const {windows, context} = batch;
    const ids = tf.tensor2d(batch.inputs, [windows, context], 'int32');
    const logits = model.apply(ids, {training}) as tf.Tensor3D;
    const symbols = logits.shape[2];
    const labels = oneHotRows(tf.tensor1d(batch.targets, 'int32'), symbols);
    return crossEntropy(tf.reshape(logits, [windows * context, symbols]), labels) as tf.Scalar;
  });
}

/** Mean loss over batches, each weighted by its size. */
export async function meanLoss(model: tf.LayersModel, batches: readonly Batch[]): Promise<number> {
  let sum = 0;
  let count = 0;
  for (const batch of batches) {
    const loss = batchLoss(model, batch, false);
    sum += (await loss.data())[0] * batch.windows;
    count += batch.windows;
    loss.dispose();
  }
  return sum / count;
}
