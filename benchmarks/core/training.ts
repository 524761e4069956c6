import {emptyPool, median, peakBytes} from '../../examples/gpt/measure.js';
import {randomBatch} from '../../examples/gpt/batches.js';
import {Rng} from '../../examples/gpt/rng.js';
import type {Corpus} from '../../examples/gpt/text.js';
import {Trainer} from '../../examples/gpt/trainer.js';
import {speedUpWasmMatMul} from '../../examples/gpt/wasm_matmul.js';

import type {TrainingMeasurement} from './measurements.js';
import type {TrainingRow} from './results.js';

const SEED = 1;
const LEARNING_RATE = 2e-3;

/** Steps of the GPT of `npm start`, each waited for, as there. */
export async function measureTraining(
    m: TrainingMeasurement, emit: (row: TrainingRow) => void, corpus: Corpus): Promise<void> {
  const {kind, context, layers, heads, width, batch, steps, warmUpSteps, backend, native} = m;
  const takeBack = speedUpWasmMatMul(); // as npm start does; nothing on other backends
  const trainer = new Trainer(corpus, {
    attention: kind, steps: warmUpSteps + steps, context, layers, heads, width, batch, learningRate: LEARNING_RATE,
    seed: SEED,
  });
  try {
    for (let n = 0; n < warmUpSteps; n++) {
      await trainer.trainStep();
    }
    const times: number[] = [];
    for (let n = 0; n < steps; n++) {
      const start = performance.now();
      await trainer.trainStep();
      times.push(performance.now() - start);
    }
    const {losses} = trainer;
    if (!losses.every(Number.isFinite)) {
      throw new Error(`wrong results: losses ${losses.join(', ')}`);
    }
    const medianMs = median(times);
    const windows = randomBatch(corpus.train, new Rng(SEED), batch, context);
    emit({
      kind, backend, native, context, layers, heads, width, batch, parameters: trainer.parameters, steps, medianMs,
      spread: (Math.max(...times) - Math.min(...times)) / medianMs,
      tokensPerSecond: 1000 * trainer.tokensPerStep / medianMs,
      peakBytes: await peakBytes(() => [trainer.minimize(windows)]),
      firstLoss: losses[0], lastLoss: losses[losses.length - 1],
    });
  } finally {
    trainer.dispose();
    takeBack();
    await emptyPool();
  }
}
