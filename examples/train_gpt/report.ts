import {ATTENTION_KINDS} from '../gpt/attention.js';
import type {StepCosts} from '../gpt/compare_steps.js';
import type {RunConfig} from '../gpt/config.js';
import {lengthPlot, lossPlot} from '../gpt/plots.js';
import type {SweepPoint} from '../gpt/sweep_lengths.js';
import type {LossAt} from '../gpt/trainer.js';

import {clock} from './progress_display.js';

/** All that a report tells; every figure was measured in the run that it is about. */
export interface ReportData {
  readonly date: Date;
  /** Backend, device, versions, text, … in words. */
  readonly facts: ReadonlyArray<readonly [name: string, value: string]>;
  readonly config: RunConfig;
  readonly stepsDone: number;
  readonly trainingSeconds: number;
  readonly losses: readonly number[];
  readonly validation: readonly LossAt[];
  readonly validationLoss: number;
  readonly bigramLoss: number;
  readonly sample: string;
  readonly costs: StepCosts;
  readonly sweep: {readonly points: readonly SweepPoint[], readonly heads: number, readonly headSize: number};
  readonly memoryKind: string;
}

export const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
export const milliseconds = (ms: number): string => `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms`;

const ESCAPES: Record<string, string> = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'};
const escape = (text: string): string => text.replace(/[&<>"]/g, symbol => ESCAPES[symbol]);

function table(rows: ReadonlyArray<readonly string[]>, header?: readonly string[]): string {
  const row = (cells: readonly string[], tag: string) =>
      `<tr>${cells.map(cell => `<${tag}>${escape(cell)}</${tag}>`).join('')}</tr>\n`;
  return `<table>\n${header ? row(header, 'th') : ''}${rows.map(cells => row(cells, 'td')).join('')}</table>`;
}

function sweepTable(points: readonly SweepPoint[]): string {
  const cell = ({note, milliseconds: ms, peakBytes}: SweepPoint): [string, string] =>
      note ? [note, ''] : [milliseconds(ms!), mebibytes(peakBytes!)];
  const lengths = [...new Set(points.map(({length}) => length))];
  const rows = lengths.map(length => [
    String(length),
    ...ATTENTION_KINDS.flatMap(kind => {
      const point = points.find(p => p.length === length && p.kind === kind);
      return point ? cell(point) : ['', ''];
    }),
  ]);
  const columns = ATTENTION_KINDS.flatMap(kind => [`${kind}: time`, `${kind}: peak memory`]);
  return table(rows, ['sequence length', ...columns]);
}

async function sweepSection({sweep: {points, heads, headSize}, memoryKind}: ReportData): Promise<string> {
  if (!points.some(({milliseconds: ms}) => ms !== undefined)) {
    return '';
  }
  return `
<h2>Attention against sequence length</h2>
<p>Causal attention alone, forward and backward, one sequence, ${heads} heads of ${headSize}.
Memory: ${escape(memoryKind)}, beyond the inputs.</p>
<figure>${await lengthPlot(points, 'milliseconds')}<figcaption>Time</figcaption></figure>
<figure>${await lengthPlot(points, 'peakBytes')}<figcaption>Peak memory</figcaption></figure>
${sweepTable(points)}`;
}

const STYLE = `
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
pre { background: #f5f5f5; padding: 1rem; white-space: pre-wrap; }
figure { margin: 1rem 0; } figcaption { color: #666; }
svg { max-width: 100%; height: auto; }`;

/** The report as one HTML file that needs nothing else. */
export async function renderReport(data: ReportData): Promise<string> {
  const {config, costs, losses, validation, validationLoss, bigramLoss} = data;
  const options = Object.entries(config).map(([name, value]) => `${name} ${value}`).join(', ');
  const facts = [
    ...data.facts, ['options', options] as const,
    ['trained', `${data.stepsDone} of ${config.steps} steps; this run took ${clock(data.trainingSeconds)}`] as const,
    ['date', data.date.toISOString()] as const,
  ];
  const costRows = ATTENTION_KINDS.map(kind =>
      [kind, milliseconds(costs[kind].milliseconds), mebibytes(costs[kind].peakBytes)]);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A small GPT, trained with ${config.attention} attention</title>
<style>${STYLE}</style>
<h1>A small GPT, trained with ${config.attention} attention</h1>
<p>Every figure here was measured in this run, on the machine named below.</p>
${table(facts)}
<h2>Loss</h2>
${table([
    ['GPT', validationLoss.toFixed(4)],
    ['bigram model, counted on the same text', bigramLoss.toFixed(4)],
  ], ['', 'validation loss (nats per symbol)'])}
<figure>${await lossPlot(losses, validation, bigramLoss)}</figure>
<h2>Sample</h2>
<pre>${escape(data.sample)}</pre>
<h2>One training step with each kind of attention</h2>
<p>The same model and batch, context ${config.context}, batch ${config.batch}.
Memory: ${escape(data.memoryKind)}, beyond weights and optimizer state.</p>
${table(costRows, ['attention', 'time (median)', 'peak memory'])}
${await sweepSection(data)}
</html>
`;
}
