import type {Rng} from './rng.js';

/** Windows of text and what follows each of their symbols, both [windows, context] row by row. */
export interface Batch {
  readonly inputs: Int32Array;
  readonly targets: Int32Array;
  readonly windows: number;
  readonly context: number;
}

function windowsAt(ids: Int32Array, starts: readonly number[], context: number): Batch {
  const inputs = new Int32Array(starts.length * context);
  const targets = new Int32Array(starts.length * context);
  starts.forEach((start, row) => {
    inputs.set(ids.subarray(start, start + context), row * context);
    targets.set(ids.subarray(start + 1, start + 1 + context), row * context);
  });
  return {inputs, targets, windows: starts.length, context};
}

/** Windows at random places. */
export function randomBatch(ids: Int32Array, rng: Rng, windows: number, context: number): Batch {
  const places = ids.length - context;
  return windowsAt(ids, Array.from({length: windows}, () => rng.below(places)), context);
}

/**
 * At most `windows` windows that do not overlap, spread evenly over the text: always the same ones, so that losses can
 * be compared. In batches of `perBatch`; the last may be smaller.
 */
export function fixedBatches(ids: Int32Array, windows: number, perBatch: number, context: number): Batch[] {
  const available = Math.floor((ids.length - 1) / context);
  const count = Math.min(windows, available);
  const starts = Array.from({length: count}, (_, n) => Math.floor(n * available / count) * context);
  const batches: Batch[] = [];
  for (let first = 0; first < count; first += perBatch) {
    batches.push(windowsAt(ids, starts.slice(first, first + perBatch), context));
  }
  return batches;
}
