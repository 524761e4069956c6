import * as tf from '@tensorflow/tfjs';

import {startWebGPU} from '../../examples/browser/webgpu_status.js';
import {normalise, splitText} from '../../examples/gpt/text.js';
import type {Corpus} from '../../examples/gpt/text.js';

import {describeRow} from '../core/describe_row.js';
import {labelOf} from '../core/measurements.js';
import type {Measurement} from '../core/measurements.js';
import {perform} from '../core/perform.js';
import {decodePlot, memoryPlot, speedPlot} from '../core/plots.js';
import type {
  AttentionRow, DecodeRow, Environment, HostRow, ResultsFile, Row, SuiteName, TrainingRow,
} from '../core/results.js';
import {slug} from '../core/slug.js';
import {measurementsOf, OPTIONS, SUITE_OF} from '../core/suite_options.js';
import {attentionTable, decodeTable, hostTable, trainingTable} from '../core/tables.js';
import type {Table} from '../core/tables.js';

import {pageDefaults} from './defaults.js';
import type {PageCommand} from './defaults.js';

const SECONDS_EACH = 120;

const byId = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const show = (id: string, text: string) => {
  byId(id).textContent = text;
};

/** Says something is wrong, in the place made for it. */
function complain(id: 'missing'|'problem', message: string|undefined) {
  show(id, message ?? '');
  byId(id).hidden = message === undefined;
}

let corpus: Promise<Corpus>|undefined;

async function fetchCorpus(): Promise<Corpus> {
  const response = await fetch('moby_dick.txt');
  if (!response.ok) {
    throw new Error(`the text did not arrive: ${response.status} ${response.statusText}`);
  }
  return splitText(normalise(await response.text()));
}

function tableOf(suite: SuiteName, rows: readonly Row[]): Table {
  switch (suite) {
    case 'attention':
      return attentionTable(rows as AttentionRow[]);
    case 'decode':
      return decodeTable(rows as DecodeRow[]);
    case 'host':
      return hostTable(rows as HostRow[]);
    case 'training':
      return trainingTable(rows as TrainingRow[]);
  }
}

async function plotsOf(suite: SuiteName, rows: readonly Row[]): Promise<string> {
  const plots = suite === 'attention' ? [speedPlot(rows as AttentionRow[]), memoryPlot(rows as AttentionRow[])] :
    suite === 'decode' ? [decodePlot(rows as DecodeRow[])] :
                         [];
  return (await Promise.all(plots)).filter(svg => svg !== undefined).join('\n');
}

function element(name: string, children: ReadonlyArray<Node|string>): HTMLElement {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function draw({header, rows}: Table) {
  const line = (cell: string, cells: readonly string[]) => element('tr', cells.map(text => element(cell, [text])));
  byId('table').replaceChildren(element('table', [
    element('thead', [line('th', header)]), element('tbody', rows.map(cells => line('td', cells))),
  ]));
}

/** Rejects when `work` takes longer than a measurement may. What the GPU is at cannot be stopped from a page. */
function limited(work: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout>|undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
        () => reject(new Error(`it did not end within ${SECONDS_EACH} s; load the page anew`)), 1000 * SECONDS_EACH);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** The page's state: one run at a time, results by suite. */
class Page {
  private readonly files: Partial<Record<SuiteName, ResultsFile<Row>>> = {};
  private readonly select = byId<HTMLSelectElement>('command');
  private readonly form = byId<HTMLFormElement>('options');
  private wantsStop = false;

  constructor(private readonly device: string, private readonly hardware: boolean) {
    const asked = new URLSearchParams(location.search).get('command');
    if (asked && [...this.select.options].some(({value}) => value === asked)) {
      this.select.value = asked;
    }
    this.select.onchange = () => void this.offer(new URLSearchParams());
    byId('start').onclick = () => void this.run();
    byId('stop').onclick = () => {
      this.wantsStop = true;
    };
    byId('download').onclick = () => this.download();
    void this.offer(new URLSearchParams(location.search));
  }

  private get command(): PageCommand {
    return this.select.value as PageCommand;
  }

  private get suite(): SuiteName {
    return SUITE_OF[this.command];
  }

  /** Shows the options of the chosen command, as the address has them or by default. */
  private offer(asked: URLSearchParams): Promise<void> {
    const defaults: Record<string, string> = {...OPTIONS[this.command], ...pageDefaults(this.command, this.hardware)};
    this.form.replaceChildren(...Object.entries(defaults).map(([name, value]) => {
      const input = document.createElement('input');
      Object.assign(input, {name, value: asked.get(name) ?? value});
      return element('label', [`${name} `, input]);
    }));
    return this.show();
  }

  private environment(): Environment {
    return {
      date: new Date().toISOString(), commit: process.env.BENCHMARK_COMMIT ?? 'unknown', backend: tf.getBackend(),
      device: this.device, tfjs: tf.version.tfjs, browser: navigator.userAgent,
    };
  }

  private setRunning(isRunning: boolean) {
    byId<HTMLButtonElement>('start').disabled = isRunning;
    byId<HTMLButtonElement>('stop').disabled = !isRunning;
    this.select.disabled = isRunning;
    document.body.dataset.state = isRunning ? 'running' : 'idle';
  }

  /** Table, plots and what was left out, of the chosen suite. */
  private async show() {
    const file = this.files[this.suite];
    byId<HTMLButtonElement>('download').disabled = !file?.results.length;
    byId('skipped').replaceChildren(
        ...(file?.skipped ?? []).map(({label, why}) => element('li', [`${label}: ${why}`])));
    byId('table').replaceChildren();
    byId('plots').replaceChildren();
    if (file?.results.length) {
      draw(tableOf(this.suite, file.results));
      byId('plots').innerHTML = await plotsOf(this.suite, file.results);
    }
  }

  private async run() {
    complain('problem', undefined);
    let measurements: Measurement[];
    try {
      const inputs = [...this.form.querySelectorAll('input')];
      measurements = measurementsOf(this.command, Object.fromEntries(inputs.map(({name, value}) => [name, value])));
    } catch (error) {
      complain('problem', (error as Error).message);
      return;
    }
    this.wantsStop = false;
    this.setRunning(true);
    const file: ResultsFile<Row> = {environment: this.environment(), results: [], skipped: []};
    this.files[this.suite] = file;
    for (const [n, measurement] of measurements.entries()) {
      if (this.wantsStop) {
        break;
      }
      byId<HTMLProgressElement>('progress').value = n / measurements.length;
      await this.measure(measurement, file);
      await this.show();
    }
    byId<HTMLProgressElement>('progress').value = 1;
    show('now', '');
    this.setRunning(false);
  }

  private async measure(measurement: Measurement, file: ResultsFile<Row>) {
    const label = labelOf(measurement);
    show('now', label);
    const place = {corpus: () => corpus ??= fetchCorpus()};
    try {
      // A moment for the page to say what is going on.
      await new Promise(resolve => setTimeout(resolve, 0));
      await limited(perform(measurement, place, row => {
        file.results.push(row);
        show('now', `${label}: ${describeRow(measurement.suite, row)}`);
      }));
    } catch (error) {
      file.skipped!.push({label, why: (error as Error).message});
      // What waits for the GPU still goes on: nothing more can be measured.
      this.wantsStop ||= /did not end/.test((error as Error).message);
    }
  }

  /** The file that npm run bench would write. */
  private download() {
    const contents = `${JSON.stringify(this.files[this.suite], null, 1)}\n`;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([contents], {type: 'application/json'}));
    link.download = `${this.suite}-${slug(this.device)}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

async function main() {
  const status = await startWebGPU();
  if ('missing' in status) {
    complain('missing', status.missing);
    document.body.dataset.state = 'missing';
    return;
  }
  show('device', `${status.device}${status.hardware ? '' : ' (an emulation on the CPU: slow)'}`);
  byId('bench').hidden = false;
  new Page(status.device, status.hardware);
  document.body.dataset.state = 'idle';
}

void main();
