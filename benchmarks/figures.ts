/**
 * npm run figures: writes the tables and plots of the README from benchmarks/results/*.json. `--check` only says
 * whether the README and the plots are what it would write, for the tests.
 */
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import {parseArgs} from 'node:util';

import type {CudaAttentionRow, CudaDecodeRow, CudaResultsFile} from './core/cuda_results.js';
import {decodePlot, memoryPlot, speedPlot} from './core/plots.js';
import type {AttentionRow, DecodeRow, Environment, HostRow, ResultsFile, TrainingRow} from './core/results.js';
import {attentionTable, decodeTable, hostTable, trainingTable} from './core/tables.js';
import {cpuAttentionSection, cpuDecodeSection, cpuHostSection, cpuTrainingSection} from './cpu_figures.js';
import {cudaAttentionSection, cudaDecodeSection} from './cuda_figures.js';
import {markdown, plots, RESULTS} from './figures_markdown.js';
import type {Svgs} from './figures_markdown.js';

const BEGIN = '<!-- figures: begin (npm run figures) -->';
const END = '<!-- figures: end -->';

const {values: args} = parseArgs({options: {check: {type: 'boolean', default: false}}});
/** The plots by file name. */
const svgs: Svgs = new Map();

const measuredOn = ({device, commit, date}: Environment): string =>
    `**${device}**, commit ${commit}, ${date.slice(0, 10)}`;

async function attentionSection(name: string, {environment, results}: ResultsFile<AttentionRow>): Promise<string> {
  const peer = environment.onnxruntime ?
    `; onnxruntime is onnxruntime-node ${environment.onnxruntime}'s WebGPU execution provider` : '';
  return [
    `${measuredOn(environment)}, backend \`${environment.backend}\`: TFLOP/s by the clock on the wall over calls ` +
        'that are queued one after the other, backward as the difference between forward and backward and forward ' +
        `alone, recorded for gradients. "unfused" is tfjs' own matMul–softmax–matMul in the same run${peer}; — where ` +
        'it does not fit the device.',
    '',
    ...await plots(svgs, name, [
      ['speed', 'speed against sequence length', speedPlot(results)],
      ['memory', 'memory against sequence length', memoryPlot(results)],
    ]),
    markdown(attentionTable(results)),
  ].join('\n');
}

async function decodeSection(name: string, {environment, results}: ResultsFile<DecodeRow>): Promise<string> {
  const {queryHeads, headSize} = results.find(({kind}) => kind !== 'copy')!;
  const copy = results.find(({kind}) => kind === 'copy');
  return [
    `${measuredOn(environment)}: one query over a cache (\`flashAttentionWithKvCache\`), ${queryHeads} heads of ` +
        `${headSize}; GB/s of keys and values read once` +
        `${copy ? `, a buffer copy makes ${copy.gigabytesPerSecond.toFixed(0)} GB/s of reads and writes` : ''}; ` +
        '"unfused" is tfjs\' own matMul–softmax–matMul of the query over the same rows in the same run.',
    '',
    ...await plots(svgs, name, [['bandwidth', 'bandwidth against cached keys', decodePlot(results)]]),
    markdown(decodeTable(results)),
  ].join('\n');
}

function hostSection({environment, results}: ResultsFile<HostRow>): string {
  return [
    `${measuredOn(environment)}, Node ${environment.node}: JavaScript time of a call on the host, the GPU not waited ` +
        'for; [1,2,64,64], with float16 [1,16,256,64], which is by subgroup matrices.',
    '', markdown(hostTable(results)),
  ].join('\n');
}

function trainingSection({environment, results}: ResultsFile<TrainingRow>): string {
  return [
    `${measuredOn(environment)}: the GPT of \`npm start\`, by the median of ${results[0].steps} steps.`,
    '', markdown(trainingTable(results)),
  ].join('\n');
}

/** What to do with the results files of each name. */
const SECTIONS: Array<[RegExp, (name: string, contents: unknown) => string|Promise<string>]> = [
  [/^attention-.*\.json$/, (name, contents) => attentionSection(name, contents as ResultsFile<AttentionRow>)],
  [/^decode-.*\.json$/, (name, contents) => decodeSection(name, contents as ResultsFile<DecodeRow>)],
  [/^training-.*\.json$/, (_, contents) => trainingSection(contents as ResultsFile<TrainingRow>)],
  [/^host-.*\.json$/, (_, contents) => hostSection(contents as ResultsFile<HostRow>)],
  [/^cuda-attention-.*\.json$/, (name, contents) =>
    cudaAttentionSection(name, contents as CudaResultsFile<CudaAttentionRow>, svgs)],
  [/^cuda-decode-.*\.json$/, (_, contents) => cudaDecodeSection(contents as CudaResultsFile<CudaDecodeRow>)],
  [/^cpu-attention-.*\.json$/, (name, contents) =>
    cpuAttentionSection(name, contents as ResultsFile<AttentionRow>, svgs)],
  [/^cpu-decode-.*\.json$/, (name, contents) => cpuDecodeSection(name, contents as ResultsFile<DecodeRow>)],
  [/^cpu-training-.*\.json$/, (name, contents) => cpuTrainingSection(name, contents as ResultsFile<TrainingRow>)],
  [/^cpu-host-.*\.json$/, (name, contents) => cpuHostSection(name, contents as ResultsFile<HostRow>)],
];

const files = existsSync(RESULTS) ? readdirSync(RESULTS).sort() : [];
const sections: string[] = [];
for (const [pattern, section] of SECTIONS) {
  for (const file of files.filter(name => pattern.test(name))) {
    const contents = JSON.parse(readFileSync(join(RESULTS, file), 'utf8')) as ResultsFile<unknown>;
    if (contents.results.length > 0) {
      sections.push(await section(basename(file, '.json'), contents));
    }
  }
}
const readme = readFileSync('README.md', 'utf8');
const [before, rest] = readme.split(BEGIN);
const after = rest?.split(END)[1];
if (after === undefined) {
  throw new Error(`README.md has no section between ${BEGIN} and ${END}`);
}
const written = `${before}${BEGIN}\n${sections.join('\n\n')}\n${END}${after}`;
if (args.check) {
  const stale = [
    ...written === readme ? [] : ['README.md'],
    ...[...svgs].filter(([name, svg]) => {
      const file = join(RESULTS, name);
      return !existsSync(file) || readFileSync(file, 'utf8') !== svg;
    }).map(([name]) => name),
    ...files.filter(name => name.endsWith('.svg') && !svgs.has(name)),
  ];
  if (stale.length > 0) {
    console.error(`not what benchmarks/results gives: ${stale.join(', ')}; run: npm run figures`);
    process.exit(1);
  }
} else {
  writeFileSync('README.md', written);
  svgs.forEach((svg, name) => writeFileSync(join(RESULTS, name), svg));
  console.log(`${sections.length} results files → README.md and ${svgs.size} plots`);
}
