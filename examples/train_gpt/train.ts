import {existsSync} from 'node:fs';
import {join, relative} from 'node:path';

import * as tf from '@tensorflow/tfjs';

import packageFile from '../../package.json' with {type: 'json'};

import {Bigram} from '../gpt/bigram.js';
import {compareSteps} from '../gpt/compare_steps.js';
import type {StepCosts} from '../gpt/compare_steps.js';
import {defaultConfig, problemWith} from '../gpt/config.js';
import type {RunConfig} from '../gpt/config.js';
import {meanLoss} from '../gpt/loss.js';
import {memoryKind} from '../gpt/measure.js';
import {Rng} from '../gpt/rng.js';
import {sampleText} from '../gpt/sample.js';
import {sweepLengths} from '../gpt/sweep_lengths.js';
import type {SweepPoint} from '../gpt/sweep_lengths.js';
import {splitText, Vocabulary} from '../gpt/text.js';
import type {Corpus} from '../gpt/text.js';
import {Trainer} from '../gpt/trainer.js';
import {train} from '../gpt/training_loop.js';

import {chooseBackend} from './backend.js';
import type {ChosenBackend} from './backend.js';
import {
  checkpointPath, checkWritable, keepPrevious, loadCheckpoint, previousPath, saveCheckpoint, writeAtomically,
} from './checkpoint.js';
import type {Checkpoint} from './checkpoint.js';
import {checkLength, loadText} from './data.js';
import type {LoadedText} from './data.js';
import {listenForInterrupt} from './interrupt.js';
import type {Interrupt} from './interrupt.js';
import type {Options} from './options.js';
import {clock, progressDisplay} from './progress_display.js';
import {mebibytes, milliseconds, renderReport} from './report.js';
import {UsageError} from './usage_error.js';

/** What suits a backend and is no part of what a run computes. */
interface Limits {
  /** Training stops after this long unless --minutes says otherwise: the whole job stays under 5 minutes on a CPU. */
  readonly minutes: number;
  /** Sequence lengths to measure attention at, and the rest of `SweepOptions`. */
  readonly lengths: readonly number[];
  readonly heads: number;
  readonly headSize: number;
  readonly seconds: number;
  readonly mostBytes: number;
}

const GIB = 2 ** 30;
const CPU_LIMITS: Limits =
    {minutes: 3, lengths: [64, 128, 256, 512, 1024, 2048], heads: 4, headSize: 32, seconds: 40, mostBytes: GIB};
const GPU_LIMITS: Limits = {
  minutes: 10, lengths: [256, 512, 1024, 2048, 4096, 8192, 16384], heads: 4, headSize: 64, seconds: 60,
  mostBytes: 4 * GIB,
};
/** May change from one part of a run to the next; everything else is the checkpoint's. */
const CHANGEABLE: ReadonlyArray<keyof RunConfig> = ['attention', 'steps', 'learningRate'];
const PROMPT = '\n';
const SAMPLE_STREAM = 0xca11;

const say = (label: string, text: string) => console.log(`${label.padEnd(12)} ${text}`);
const shown = (path: string): string => relative(process.cwd(), path) || path;

/** The checkpoint's configuration with what may be changed; a finished run goes on for as many steps again. */
function resumedConfig({config, snapshot}: Checkpoint, given: Partial<RunConfig>): RunConfig {
  for (const name of Object.keys(given) as Array<keyof RunConfig>) {
    if (!CHANGEABLE.includes(name) && given[name] !== config[name]) {
      throw new UsageError(
          `the checkpoint was made with ${name} ${config[name]}; --resume cannot make it ${given[name]}`);
    }
  }
  if (given.steps !== undefined && given.steps <= snapshot.step) {
    throw new UsageError(
        `the checkpoint is at step ${snapshot.step} already; expected more for --steps, received ${given.steps}`);
  }
  const steps = snapshot.step >= config.steps ? snapshot.step + config.steps : config.steps;
  return {...config, steps, ...given};
}

function checkConfig(config: RunConfig, text: LoadedText) {
  const problem = problemWith(config);
  if (problem) {
    throw new UsageError(problem);
  }
  checkLength(text.text, text.name, config.context);
}

function diverged(step: number): UsageError {
  return new UsageError(
      `the training has diverged at step ${step}: expected a lower --learning-rate; nothing was saved since then`);
}

/** Trains, saving now and then and at the end. Gives the seconds it took. */
async function runTraining(
    trainer: Trainer, save: () => Promise<void>, minutes: number, interrupt: Interrupt): Promise<number> {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const firstStep = trainer.step;
  const display = progressDisplay(firstStep, trainer.config.steps);
  try {
    for await (const progress of train(trainer)) {
      if (!Number.isFinite(progress.loss)) {
        throw diverged(progress.step);
      }
      display.show(progress);
      if (interrupt.requested || seconds() > 60 * minutes) {
        break;
      }
      if (progress.validationLoss !== undefined) {
        await save();
      }
    }
  } finally {
    display.end();
  }
  if (trainer.step > firstStep) {
    await save();
  }
  return seconds();
}

async function makeUpText(trainer: Trainer, length: number): Promise<string> {
  const {model, corpus, config} = trainer;
  const rng = new Rng(config.seed ^ SAMPLE_STREAM);
  let text = '';
  for await (const symbol of sampleText(model, corpus.vocabulary, config.context, PROMPT, rng, {length})) {
    text += symbol;
  }
  return text.trim();
}

function tellCosts({flash, standard}: StepCosts) {
  for (const [kind, cost] of [['flash', flash], ['standard', standard]] as const) {
    say('', `${kind.padEnd(8)} ${milliseconds(cost.milliseconds).padStart(8)}, peak ${mebibytes(cost.peakBytes)}`);
  }
}

async function sweep(limits: Limits, lengths: readonly number[]): Promise<SweepPoint[]> {
  const points: SweepPoint[] = [];
  if (lengths.length > 0) {
    say('attention', `alone, forward and backward, ${limits.heads} heads of ${limits.headSize}`);
  }
  for await (const point of sweepLengths({...limits, lengths})) {
    points.push(point);
    const {length, kind, note} = point;
    const result = note ?? `${milliseconds(point.milliseconds!).padStart(8)}, peak ${mebibytes(point.peakBytes!)}`;
    say('', `N ${String(length).padStart(5)} ${kind.padEnd(8)} ${result}`);
  }
  return points;
}

function factsOf(backend: ChosenBackend, text: LoadedText, corpus: Corpus, trainer: Trainer): Array<[string, string]> {
  return [
    ['backend', `${backend.name}: ${backend.device}`],
    ...backend.kernels ? [['attention', backend.kernels] as [string, string]] : [],
    ...backend.note ? [['no webgpu', backend.note] as [string, string]] : [],
    ['versions', `tfjs-flash-attention ${packageFile.version}, tfjs ${tf.version_core}, ` +
                 `Node ${process.versions.node}, ${process.platform} ${process.arch}`],
    ['text', `${text.name}, ${text.text.length} characters, ${corpus.vocabulary.size} symbols, ` +
             `SHA-256 ${text.source.sha256}`],
    ['model', `${trainer.parameters} weights`],
  ];
}

/** The main job. Gives the exit code. */
export async function trainGpt(options: Options): Promise<number> {
  const start = performance.now();
  const interrupt = listenForInterrupt();
  const checkpoint = options.resume ? loadCheckpoint(options.out) : undefined;
  const text = loadText(options.data ?? checkpoint?.data.path);
  if (checkpoint && checkpoint.data.sha256 !== text.source.sha256) {
    throw new UsageError(`${text.name} is not the text that the checkpoint was made from`);
  }
  const resumed = checkpoint && resumedConfig(checkpoint, options.config);
  checkConfig(resumed ?? {...defaultConfig(false), ...options.config}, text);
  const backend = await chooseBackend(options.backend);
  const limits = backend.onGpu ? GPU_LIMITS : CPU_LIMITS;
  const config = resumed ?? {...defaultConfig(backend.onGpu), ...options.config};
  checkConfig(config, text);
  checkWritable(options.out);

  const corpus = splitText(text.text, checkpoint && new Vocabulary(checkpoint.symbols));
  const trainer = new Trainer(corpus, config);
  if (checkpoint) {
    try {
      trainer.restore(checkpoint.snapshot);
    } catch (error) {
      throw new UsageError(`cannot use the checkpoint ${checkpointPath(options.out)}: ${(error as Error).message}`);
    }
  }
  const facts = factsOf(backend, text, corpus, trainer);
  facts.forEach(([name, value]) => say(name, value));
  const {attention, layers, width, heads, context, batch, seed} = config;
  say('training', `${attention} attention, ${layers} layers of width ${width}, ${heads} heads, context ${context}, ` +
                  `batch ${batch}, seed ${seed}`);

  if (!checkpoint && existsSync(checkpointPath(options.out))) {
    say('', `an earlier run's checkpoint moves to ${shown(previousPath(options.out))} when this one saves; ` +
            '--resume would go on from it');
  }

  let saves = 0;
  const save = async () => {
    const snapshot = await trainer.snapshot();
    if (!snapshot.arrays.every(({data}) => data.every(Number.isFinite))) {
      throw diverged(trainer.step);
    }
    if (saves++ === 0 && !checkpoint) {
      keepPrevious(options.out);
    }
    saveCheckpoint(options.out, {config, symbols: corpus.vocabulary.symbols, data: text.source, snapshot});
  };
  const trainingSeconds = await runTraining(trainer, save, options.minutes ?? limits.minutes, interrupt);
  const where = shown(checkpointPath(options.out));
  const progress = `step ${trainer.step} of ${config.steps}`;
  if (interrupt.requested) {
    console.log(`Stopped at ${progress}, saved to ${where}; --resume goes on.`);
    return 0;
  }
  if (trainer.step < config.steps) {
    console.log(`Time is up at ${progress}; --resume goes on, --minutes sets the limit.`);
  }
  say('saved', where);
  interrupt.nothingToSave(`Stopped; the model is in ${where}, and there is no report.`);

  const batches = trainer.validationBatches(false);
  const validationLoss = await meanLoss(trainer.model, batches);
  const bigramLoss = new Bigram(corpus.train, corpus.vocabulary.size).loss(batches);
  say('validation', `loss ${validationLoss.toFixed(4)} nats per symbol; a bigram model has ${bigramLoss.toFixed(4)}`);
  const sample = await makeUpText(trainer, options.sample);
  say('sample', `\n${sample}\n`);
  say('one step', `with each kind of attention (${memoryKind()})`);
  const costs = await compareSteps(corpus, config);
  tellCosts(costs);
  const points = await sweep(limits, options.lengths ?? limits.lengths);
  const report = join(options.out, 'report.html');
  writeAtomically(report, await renderReport({
    date: new Date(), facts, config, stepsDone: trainer.step, trainingSeconds, losses: trainer.losses,
    validation: trainer.validation, validationLoss, bigramLoss, sample, costs,
    sweep: {points, heads: limits.heads, headSize: limits.headSize}, memoryKind: memoryKind(),
  }));
  say('report', `${shown(report)} (${clock((performance.now() - start) / 1000)} in all)`);
  return 0;
}
