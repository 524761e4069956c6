import 'uplot/dist/uPlot.min.css';

import {Bigram} from '../gpt/bigram.js';
import type {AttentionKind} from '../gpt/attention.js';
import {browserConfig, problemWith} from '../gpt/config.js';
import type {RunConfig} from '../gpt/config.js';
import {bytesInUse} from '../gpt/measure.js';
import {Rng} from '../gpt/rng.js';
import {sampleText} from '../gpt/sample.js';
import {normalise, smallestText, splitText} from '../gpt/text.js';
import type {Corpus} from '../gpt/text.js';
import {Trainer} from '../gpt/trainer.js';
import {train} from '../gpt/training_loop.js';
import type {Progress} from '../gpt/training_loop.js';

import {LivePlot} from './live_plot.js';
import {startWebGPU} from './webgpu_status.js';

const SAMPLE_LENGTH = 200;
const SAMPLE_SEED = 1;
const DRAW_EVERY_MS = 250;
/** How often the validation loss and a sample are made on the way: both take long on an emulated GPU. */
const CHECKS = {gpu: 10, emulation: 2};

const byId = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const show = (id: string, text: string) => {
  byId(id).textContent = text;
};
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Says something is wrong, in the place made for it. */
function complain(id: 'missing'|'problem', message: string|undefined) {
  show(id, message ?? '');
  byId(id).hidden = message === undefined;
}

/** The page's state: one run at a time, paused or going. */
class Page {
  private readonly plot = new LivePlot(byId('plot'));
  private readonly form = byId<HTMLFormElement>('sizes');
  private readonly attention = byId<HTMLSelectElement>('attention');
  private trainer?: Trainer;
  private bigramLoss = NaN;
  private wantsPause = false;
  private lastDrawn = -Infinity;
  private peaks: Partial<Record<AttentionKind, number>> = {};

  constructor(private readonly corpus: Corpus, defaults: RunConfig, private readonly checks: number) {
    const asked = new URLSearchParams(location.search);
    for (const input of this.inputs()) {
      input.value = asked.get(input.name) ?? String(defaults[input.name as keyof RunConfig]);
    }
    this.attention.value = asked.get('attention') === 'standard' ? 'standard' : 'flash';
    byId('start').onclick = () => void this.run();
    byId('stop').onclick = () => {
      this.wantsPause = true;
    };
    byId('again').onclick = () => this.forget();
  }

  private inputs(): HTMLInputElement[] {
    return [...this.form.querySelectorAll('input')];
  }

  private config(): RunConfig {
    const numbers = Object.fromEntries(this.inputs().map(({name, valueAsNumber}) => [name, valueAsNumber]));
    return {...numbers, attention: this.attention.value as AttentionKind} as unknown as RunConfig;
  }

  /** What keeps the sizes in the form from being trained with. */
  private problem(): string|undefined {
    const invalid = this.inputs().find(input => !input.checkValidity());
    if (invalid) {
      return `${invalid.name}: ${invalid.validationMessage}`;
    }
    const config = this.config();
    const {train: learned, validation} = this.corpus;
    const isTooShort = learned.length + validation.length < smallestText(config.context);
    return problemWith(config) ?? (isTooShort ? `the text is too short for a context of ${config.context}` : undefined);
  }

  private setRunning(isRunning: boolean) {
    byId<HTMLButtonElement>('start').disabled = isRunning;
    byId<HTMLButtonElement>('stop').disabled = !isRunning;
    byId<HTMLButtonElement>('again').disabled = isRunning || !this.trainer;
    this.inputs().forEach(input => {
      input.disabled = isRunning || this.trainer !== undefined;
    });
    show('start', this.trainer ? 'Go on' : 'Start');
    document.body.dataset.state = isRunning ? 'running' : 'idle';
  }

  private forget() {
    this.trainer?.dispose();
    this.trainer = undefined;
    this.peaks = {};
    complain('problem', undefined);
    this.setRunning(false);
  }

  private begin(): Trainer {
    const trainer = new Trainer(this.corpus, this.config());
    const {vocabulary, train: learned} = this.corpus;
    this.bigramLoss = new Bigram(learned, vocabulary.size).loss(trainer.validationBatches(true));
    show('bigram', this.bigramLoss.toFixed(3));
    return trainer;
  }

  private async run() {
    const problem = this.trainer ? undefined : this.problem();
    complain('problem', problem);
    if (problem) {
      return;
    }
    this.wantsPause = false;
    try {
      this.trainer ??= this.begin();
      this.setRunning(true);
      let switched = true;
      while (switched && !this.wantsPause) {
        await this.useChosenAttention();
        switched = await this.trainUntilSwitched();
      }
      this.draw();
      await this.sample();
    } catch (error) {
      complain('problem', `Training stopped: ${(error as Error).message}`);
      console.error(error);
    }
    this.setRunning(false);
  }

  /** Gives true when the loop was left only because another attention has been chosen. */
  private async trainUntilSwitched(): Promise<boolean> {
    const trainer = this.trainer!;
    for await (const progress of train(trainer, this.checks)) {
      this.tell(progress);
      if (progress.validationLoss !== undefined && progress.step < progress.steps) {
        await this.sample();
      }
      if (this.wantsPause) {
        return false;
      }
      if (this.attention.value !== trainer.config.attention) {
        return true;
      }
    }
    return false;
  }

  /** The same run with the other attention: weights, optimizer, place in the text and curves move over. */
  private async useChosenAttention() {
    const attention = this.attention.value as AttentionKind;
    const {trainer} = this;
    if (!trainer || trainer.config.attention === attention) {
      return;
    }
    const snapshot = await trainer.snapshot();
    const next = new Trainer(this.corpus, {...trainer.config, attention});
    next.restore(snapshot);
    trainer.dispose();
    this.trainer = next;
  }

  private tell({step, steps, smoothLoss, tokensPerSecond, secondsLeft}: Progress) {
    const {attention} = this.trainer!.config;
    const bytes = bytesInUse();
    this.peaks[attention] = Math.max(this.peaks[attention] ?? 0, bytes);
    show('step', `${step} of ${steps}, ${attention} attention`);
    show('loss', smoothLoss.toFixed(3));
    show('validation', this.trainer!.validation.at(-1)?.loss.toFixed(3) ?? '–');
    show('speed', `${Math.round(tokensPerSecond).toLocaleString('en')} tokens/s`);
    show('left', `${Math.ceil(secondsLeft)} s`);
    show('memory', mebibytes(bytes));
    show(`peak-${attention}`, mebibytes(this.peaks[attention]!));
    byId<HTMLProgressElement>('progress').value = step / steps;
    if (performance.now() - this.lastDrawn > DRAW_EVERY_MS) {
      this.draw();
    }
  }

  private draw() {
    this.lastDrawn = performance.now();
    this.plot.draw(this.trainer!, this.bigramLoss);
  }

  private async sample() {
    const {model, config} = this.trainer!;
    let text = '';
    const symbols = sampleText(
        model, this.corpus.vocabulary, config.context, '\n', new Rng(SAMPLE_SEED), {length: SAMPLE_LENGTH});
    for await (const symbol of symbols) {
      text += symbol;
    }
    show('sample', text.trim());
  }
}

async function main() {
  const status = await startWebGPU();
  if ('missing' in status) {
    complain('missing', status.missing);
    document.body.dataset.state = 'missing';
    return;
  }
  const response = await fetch('moby_dick.txt');
  if (!response.ok) {
    complain('missing', `The text did not arrive: ${response.status} ${response.statusText}.`);
    return;
  }
  const corpus = splitText(normalise(await response.text()));
  show('device', `${status.device}${status.hardware ? '' : ' (an emulation on the CPU: slow)'}`);
  byId('trainer').hidden = false;
  new Page(corpus, browserConfig(status.hardware), status.hardware ? CHECKS.gpu : CHECKS.emulation);
  document.body.dataset.state = 'idle';
}

void main();
