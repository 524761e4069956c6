import type {Corpus} from '../../examples/gpt/text.js';

import {measureAttention} from './attention.js';
import {measureCopy, measureDecode} from './decode.js';
import {measureHost} from './host.js';
import type {Measurement} from './measurements.js';
import type {Row} from './results.js';
import {measureTraining} from './training.js';

/** What a measurement needs of the place that it runs in. */
export interface Place {
  corpus(): Promise<Corpus>;
  /** Collects garbage and gives the bytes of JavaScript heap in use, where that is possible. */
  heapBytes?: () => number;
}

/**
 * Measures on the current tfjs backend, telling each row as it comes.
 * @throws NotMeasured where that is impossible; other errors where something is wrong, wrong results included.
 */
export async function perform(m: Measurement, place: Place, emit: (row: Row) => void): Promise<void> {
  switch (m.suite) {
    case 'attention':
      return measureAttention(m, emit);
    case 'decode':
      return m.kind === 'copy' ? measureCopy(m, emit) : measureDecode(m, emit);
    case 'host':
      return measureHost(m, emit, place.heapBytes);
    case 'training':
      return measureTraining(m, emit, await place.corpus());
  }
}
