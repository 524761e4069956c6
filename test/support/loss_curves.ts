import {ATTENTION_KINDS} from '../../examples/gpt/attention.js';
import type {RunConfig} from '../../examples/gpt/config.js';
import {splitText} from '../../examples/gpt/text.js';
import {Trainer} from '../../examples/gpt/trainer.js';
import {nativeReport} from '../../src/node.js';

const TEXT =
    Array.from({length: 400}, (_, n) => `Chapter ${n}: it was a ${n % 7 ? 'dark' : 'bright'} night.\n`).join('');
const CONFIG: Omit<RunConfig, 'attention'> =
    {context: 48, layers: 2, heads: 2, width: 32, batch: 4, steps: 20, learningRate: 3e-3, seed: 7};
/** Roundings that Adam carries from step to step, 5e-7 as measured; another seed is far more away at once. */
const FLOAT_ERROR = 1e-5;

/**
 * The GPT of npm start learns with flashAttention what it learns with standard attention, step for step, on the current
 * backend. @throws where it does not, or where the addon has not computed it.
 */
export async function expectSameLossCurves(): Promise<void> {
  const corpus = splitText(TEXT);
  const curve = async (attention: RunConfig['attention'], seed: number): Promise<number[]> => {
    const trainer = new Trainer(corpus, {...CONFIG, attention, seed});
    for (let step = 0; step < CONFIG.steps; step++) {
      await trainer.trainStep();
    }
    trainer.dispose();
    return trainer.losses;
  };
  const before = nativeReport().calls!;
  const [flash, standard] = await ATTENTION_KINDS.reduce<Promise<number[][]>>(
      async (curves, kind) => [...await curves, await curve(kind, CONFIG.seed)], Promise.resolve([]));
  const after = nativeReport().calls!;
  const calls = CONFIG.steps * CONFIG.layers;
  expect([after.forward - before.forward, after.backward - before.backward]).toEqual([calls, calls]);
  const differences = (other: number[]) => other.map((loss, step) => Math.abs(loss - standard[step]));
  expect(Math.max(...differences(flash))).toBeLessThan(FLOAT_ERROR);
  expect(standard[standard.length - 1]).toBeLessThan(0.9 * standard[0]);
  const others = await curve('flash', CONFIG.seed + 1);
  expect(Math.max(...differences(others))).toBeGreaterThan(100 * FLOAT_ERROR);
}
