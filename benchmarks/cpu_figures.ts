import {cpuAttentionTable, cpuDecodeTable, cpuSpeeds, cpuTrainingTable, timesAsFast} from './core/cpu_tables.js';
import type {FigurePass} from './core/figures_data.js';
import {cpuSpeedPlot} from './core/plots.js';
import type {
  AttentionKind, AttentionRow, DecodeRow, Environment, HostRow, ResultsFile, TrainingRow,
} from './core/results.js';
import {hostTable} from './core/tables.js';
import {markdown, plots} from './figures_markdown.js';
import type {Svgs} from './figures_markdown.js';

/** Where, with what, when. */
function measuredOn({device, commit, date, threads, native, tfjs, tensorflow, pytorch, node}: Environment): string {
  const versions = [
    native && `the addon with ${native}`, `tfjs ${tfjs}`, tensorflow && `TensorFlow ${tensorflow}`,
    pytorch && `PyTorch ${pytorch}`, `Node ${node}`,
  ].filter(Boolean).join(', ');
  return `**${device}**, threads: ${threads}, commit ${commit}, ${date.slice(0, 10)}, float32 (${versions})`;
}

const largestSpread = (rows: ReadonlyArray<{spread: number}>): string =>
    `${(100 * Math.max(...rows.map(({spread}) => spread))).toFixed(0)}%`;

/** What was left out, and why. */
const missing = ({skipped = []}: ResultsFile<unknown>): string =>
    skipped.map(({label, why}) => ` Not measured: ${label} (${why}).`).join('');

function comparison(rows: readonly AttentionRow[]): string {
  const one = (backend: string, kind: AttentionKind, pass: FigurePass): string|undefined => {
    const found = timesAsFast(rows, backend, kind, pass);
    return found && `${found.map(times => times.toFixed(2)).join('–')} ${pass}`;
  };
  const others = [
    ['pytorch', 'PyTorch\'s scaled_dot_product_attention'], ['standard', 'tfjs-node\'s own ops'],
  ] as const;
  const lines = others.flatMap(([kind, words]) => ['tensorflow', 'cpu'].flatMap(backend => {
    const passes = (['forward', 'backward'] as const).map(pass => one(backend, kind, pass)).filter(Boolean);
    return passes.length > 0 ? [`on ${backend} ${passes.join(', ')} times as fast as ${words}`] : [];
  }));
  return lines.length > 0 ? ` Over these shapes: ${lines.join('; ')}.` : '';
}

export async function cpuAttentionSection(
    name: string, file: ResultsFile<AttentionRow>, svgs: Svgs): Promise<string> {
  const {environment, results} = file;
  return [
    `${measuredOn(environment)}: GFLOP/s on the CPU, one sequence, backward as the difference between forward and ` +
        'backward and forward alone; medians, batches of one measurement at most ' +
        `${largestSpread(results)} apart.${comparison(results)}${missing(file)}`,
    '',
    ...await plots(svgs, name, [['speed', 'speed on the CPU', cpuSpeedPlot(cpuSpeeds(results))]]),
    markdown(cpuAttentionTable(results)),
  ].join('\n');
}

export function cpuDecodeSection(_: string, file: ResultsFile<DecodeRow>): string {
  const {environment, results} = file;
  const {queryHeads, keyHeads, headSize} = results[0];
  return [
    `${measuredOn(environment)}: one query over a cache, ${queryHeads} query heads, ${keyHeads} key heads of ` +
        `${headSize}; GB/s of keys and values read once. A plain read goes over the same number of bytes, by the ` +
        `fastest of PyTorch's sum, max and dot, or by tf.sum.${missing(file)}`,
    '', markdown(cpuDecodeTable(results)),
  ].join('\n');
}

export function cpuTrainingSection(_: string, file: ResultsFile<TrainingRow>): string {
  const {environment, results} = file;
  const {layers, width, heads, batch, steps} = results[0];
  return [
    `${measuredOn(environment)}: the GPT of \`npm start\`, ${layers} layers of width ${width}, ${heads} heads, batch ` +
        `${batch}, by the median of ${steps} steps. "TypeScript" is \`FLASH_ATTENTION_NATIVE=off\`.${missing(file)}`,
    '', markdown(cpuTrainingTable(results)),
  ].join('\n');
}

export function cpuHostSection(_: string, file: ResultsFile<HostRow>): string {
  return [
    `${measuredOn(file.environment)}: a whole call on tensors of 2 rows, 2 heads of 16, which is nearly all the cost ` +
        `of calling.${missing(file)}`,
    '', markdown(hostTable(file.results)),
  ].join('\n');
}
