/**
 * npm run figures: writes the tables and plots of the README from benchmarks/results/*.json. `--check` only says
 * whether the README is what it would write, for the tests.
 */
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import {parseArgs} from 'node:util';

import * as vega from 'vega';
import {compile} from 'vega-lite';
import type {TopLevelSpec} from 'vega-lite';

import type {Result, ResultsFile} from './attention_results.js';
import type {DecodeResultsFile} from './decode_results.js';

const RESULTS = 'benchmarks/results';
const BEGIN = '<!-- figures: begin (npm run figures) -->';
const END = '<!-- figures: end -->';
const COLOURS = {domain: ['flashAttention', 'matMul, softmax, matMul'], range: ['#1f77b4', '#d62728']};

const {values: args} = parseArgs({options: {check: {type: 'boolean', default: false}}});

async function toSvg(spec: TopLevelSpec): Promise<string> {
  const view = new vega.View(vega.parse(compile(spec).spec), {renderer: 'none'});
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}

interface Point {
  length: number;
  value: number;
  kind: string;
  headSize: string;
}

function points(results: readonly Result[], value: (r: Result) => number): Point[] {
  return results.map(r => ({
    length: r.length, value: value(r), headSize: `D = ${r.headSize}`, kind: COLOURS.domain[r.kind === 'flash' ? 0 : 1],
  }));
}

function plot(values: Point[], title: string, logarithmic: boolean): Promise<string> {
  const lengths = [...new Set(values.map(({length}) => length))].sort((a, b) => a - b);
  return toSvg({
    data: {values},
    background: 'white',
    facet: {column: {field: 'headSize', type: 'nominal', title: null, sort: ['D = 64', 'D = 128']}},
    spec: {
      width: 300, height: 220,
      mark: {type: 'line', point: true, strokeWidth: 2},
      encoding: {
        x: {
          field: 'length', type: 'quantitative', title: 'sequence length N', scale: {type: 'log', base: 2},
          axis: {values: lengths, labelOverlap: true},
        },
        y: {field: 'value', type: 'quantitative', title, scale: logarithmic ? {type: 'log'} : {zero: true}},
        color: {field: 'kind', type: 'nominal', title: null, scale: COLOURS, legend: {orient: 'top'}},
      },
    },
  });
}

const number = (x: number|undefined, digits = 1) => x === undefined ? '—' : x.toFixed(digits);

/** One line a shape: both kinds side by side, forward and the whole training step. */
function table(results: readonly Result[]): string {
  const find = (like: Result, kind: Result['kind'], pass: Result['pass']) => results.find(
      r => r.kind === kind && r.pass === pass && r.length === like.length && r.headSize === like.headSize &&
          r.batch === like.batch && r.heads === like.heads && r.causal === like.causal);
  const lines = results.filter(r => r.kind === 'flash' && r.pass === 'forward').map(flash => {
    const standard = find(flash, 'standard', 'forward');
    const flashStep = find(flash, 'flash', 'forward+backward')!;
    const standardStep = find(flash, 'standard', 'forward+backward');
    const memory = (r: Result|undefined) => number(r && r.peakBytes / 2 ** 20, 0);
    return `| ${flash.batch} | ${flash.heads} | ${flash.length} | ${flash.headSize} | ${flash.causal ? 'yes' : ''} | ` +
        `${number(flash.tflops)} | ${number(standard?.tflops)} | ${number(flashStep.tflops)} | ` +
        `${number(standardStep?.tflops)} | ${memory(flashStep)} | ${memory(standardStep)} |`;
  });
  return [
    '| B | H | N | D | causal | forward | unfused | forward + backward | unfused | peak MiB | unfused |',
    '|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|', ...lines,
  ].join('\n');
}

async function section(file: string, svgs: Map<string, string>): Promise<string> {
  const {environment, results} = JSON.parse(readFileSync(join(RESULTS, file), 'utf8')) as ResultsFile;
  const name = basename(file, '.json');
  // Plots show one line a kind: the sweep over lengths at one number of tokens, not causal.
  const sweep = results.filter(r => !r.causal && r.series === 'sweep');
  const step = sweep.filter(r => r.pass === 'forward+backward');
  svgs.set(`${name}-speed.svg`, await plot(points(step, r => r.tflops), 'TFLOP/s, forward + backward', false));
  svgs.set(`${name}-memory.svg`, await plot(points(step, r => r.peakBytes / 2 ** 20), 'peak memory (MiB)', true));
  return [
    `**${environment.device}**, backend \`${environment.backend}\`, commit ${environment.commit}, ` +
        `${environment.date.slice(0, 10)}. TFLOP/s; "unfused" is tfjs' own matMul–softmax–matMul in the same run; — ` +
        'where it does not fit a WebGPU binding.', '',
    `![speed against sequence length](${RESULTS}/${name}-speed.svg)`, '',
    `![memory against sequence length](${RESULTS}/${name}-memory.svg)`, '',
    table(results),
  ].join('\n');
}

/** One line a length of the cache. Splits that were asked for are for the notes. */
function decodeSection(file: string): string {
  const {environment, results} = JSON.parse(readFileSync(join(RESULTS, file), 'utf8')) as DecodeResultsFile;
  const lines = results.filter(({kind, numSplits}) => kind === 'flash' && numSplits === 0).map(flash => {
    const standard = results.find(({kind, keys}) => kind === 'standard' && keys === flash.keys)!;
    return `| ${flash.keys} | ${flash.medianMs.toFixed(3)} | ${flash.gigabytesPerSecond.toFixed(0)} | ` +
        `${standard.medianMs.toFixed(3)} | ${(standard.medianMs / flash.medianMs).toFixed(1)} |`;
  });
  const [{queryHeads, keyHeads, headSize}] = results;
  return [
    `**${environment.device}**, commit ${environment.commit}, ${environment.date.slice(0, 10)}: one query over a ` +
        `cache (\`flashAttentionWithKvCache\`), ${queryHeads} heads, ${keyHeads} key heads of ${headSize}; "unfused" ` +
        'is tfjs\' own matMul–softmax–matMul of the query over the same rows in the same run.', '',
    '| keys | ms | GB/s | unfused ms | times |', '|--:|--:|--:|--:|--:|', ...lines,
  ].join('\n');
}

const named = (pattern: RegExp): string[] => existsSync(RESULTS) ? readdirSync(RESULTS).filter(
    name => pattern.test(name)).sort() : [];
const files = named(/^attention-.*\.json$/);
const svgs = new Map<string, string>();
const sections: string[] = [];
for (const file of files) {
  sections.push(await section(file, svgs));
}
sections.push(...named(/^decode-.*\.json$/).map(decodeSection));
const readme = readFileSync('README.md', 'utf8');
const [before, rest] = readme.split(BEGIN);
const after = rest?.split(END)[1];
if (after === undefined) {
  throw new Error(`README.md has no section between ${BEGIN} and ${END}`);
}
const written = `${before}${BEGIN}\n${sections.join('\n\n')}\n${END}${after}`;
if (args.check) {
  if (written !== readme) {
    console.error('README.md is not what benchmarks/results gives: npm run figures');
    process.exit(1);
  }
} else {
  writeFileSync('README.md', written);
  svgs.forEach((svg, name) => writeFileSync(join(RESULTS, name), svg));
  console.log(`${sections.length} results files → README.md and ${svgs.size} plots`);
}
