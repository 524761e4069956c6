import type {Batch} from './batches.js';

/** Added to each count, so that a pair never seen keeps some probability. Chosen on the training text's tail. */
const SMOOTHING = 0.1;

/** The simplest model of a text: the next symbol depends on the last one only, with counted frequencies. */
export class Bigram {
  /** ln p(next | last), [size, size]. */
  private readonly logProbability: Float64Array;

  constructor(ids: Int32Array, private readonly size: number) {
    const counts = new Float64Array(size * size).fill(SMOOTHING);
    for (let n = 1; n < ids.length; n++) {
      counts[ids[n - 1] * size + ids[n]]++;
    }
    for (let last = 0; last < size; last++) {
      const row = counts.subarray(last * size, (last + 1) * size);
      const total = row.reduce((sum, count) => sum + count, 0);
      row.forEach((count, next) => {
        row[next] = Math.log(count / total);
      });
    }
    this.logProbability = counts;
  }

  /** Mean cross-entropy in nats per symbol. */
  loss(batches: readonly Batch[]): number {
    let sum = 0;
    let count = 0;
    for (const {inputs, targets} of batches) {
      inputs.forEach((last, n) => {
        sum -= this.logProbability[last * this.size + targets[n]];
      });
      count += inputs.length;
    }
    return sum / count;
  }
}
