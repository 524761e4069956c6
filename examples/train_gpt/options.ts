import {parseArgs} from 'node:util';
import type {ParseArgsConfig} from 'node:util';

import {ATTENTION_KINDS} from '../gpt/attention.js';
import type {RunConfig} from '../gpt/config.js';

import {UsageError} from './usage_error.js';

export const BACKENDS = ['auto', 'webgpu', 'wasm', 'cpu', 'tensorflow'] as const;
export type BackendChoice = typeof BACKENDS[number];

/** What the command line asks for. */
export interface Options {
  readonly backend: BackendChoice;
  /** Only what was given: the rest is the backend's default, or the checkpoint's. */
  readonly config: Partial<RunConfig>;
  readonly data?: string;
  readonly out: string;
  readonly resume: boolean;
  /** Training stops after this long; infinite for no limit, undefined for the backend's default. */
  readonly minutes?: number;
  /** Sequence lengths to measure both kinds of attention at; undefined for the backend's default. */
  readonly lengths?: readonly number[];
  /** Symbols of text to make up at the end. */
  readonly sample: number;
  readonly help: boolean;
}

interface OptionHelp {
  readonly type: 'string'|'boolean';
  readonly value?: string;
  readonly help: string;
}

const text = (value: string, help: string): OptionHelp => ({type: 'string', value, help});

const OPTIONS: Record<string, OptionHelp> = {
  'backend': text(BACKENDS.join('|'), 'where to compute; auto: webgpu on a GPU, else tensorflow, else wasm'),
  'attention': text(ATTENTION_KINDS.join('|'), 'which attention to train with (default flash)'),
  'steps': text('N', 'training steps in all, those before --resume included'),
  'context': text('N', 'symbols that the model sees at once'),
  'layers': text('N', 'blocks of attention and MLP'),
  'heads': text('N', 'attention heads; divides the width'),
  'width': text('N', 'size of the vectors between blocks'),
  'batch': text('N', 'windows of text in a step'),
  'learning-rate': text('X', 'highest learning rate of the schedule'),
  'data': text('FILE', 'UTF-8 text to learn from (default: Moby-Dick, ships with the project)'),
  'seed': text('N', 'decides first weights, order of the data and sample (default 1)'),
  'minutes': text('X', 'stop training after this long; 0 is no limit'),
  'lengths': text('N,N,…', 'sequence lengths to measure both attentions at, or none'),
  'sample': text('N', 'symbols of text to make up at the end (default 500)'),
  'out': text('FOLDER', 'for the report and the checkpoint (default out)'),
  'resume': {type: 'boolean', help: 'go on from the checkpoint in the out folder'},
  'help': {type: 'boolean', help: 'this text'},
};

export function helpText(): string {
  const lines = Object.entries(OPTIONS).map(([name, {value, help}]) =>
      `  ${`--${name}${value ? ` ${value}` : ''}`.padEnd(44)} ${help}`);
  return [
    'Trains a small GPT on English text with flashAttention, and compares it with standard attention.', '',
    'npm start -- [options]', '', ...lines, '',
    'Ctrl-C saves and ends. Exit code 0: done or stopped; 2: something in the call needs changing; 1: a fault.',
  ].join('\n');
}

type Values = Record<string, string|boolean|undefined>;

function parse(args: readonly string[]): Values {
  const options = Object.fromEntries(Object.entries(OPTIONS).map(([name, {type}]) => [name, {type}]));
  try {
    return parseArgs({args: [...args], options: options as ParseArgsConfig['options'], strict: true}).values as Values;
  } catch (error) {
    const [first] = (error as Error).message.split(/[.\n](?:\s|$)/);
    throw new UsageError(`${first}; --help lists the options`);
  }
}

const expected = (what: string, name: string, received: unknown): UsageError =>
    new UsageError(`expected ${what} for --${name}, received ${JSON.stringify(received)}`);

function integer(values: Values, name: string, least: number, most: number): number|undefined {
  const text = values[name] as string|undefined;
  if (text === undefined) {
    return undefined;
  }
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < least || number > most) {
    throw expected(`a whole number from ${least} to ${most}`, name, text);
  }
  return number;
}

function decimal(values: Values, name: string, allowZero: boolean): number|undefined {
  const text = values[name] as string|undefined;
  if (text === undefined) {
    return undefined;
  }
  const number = Number(text);
  if (text.trim() === '' || !Number.isFinite(number) || number < 0 || !allowZero && number === 0) {
    throw expected(allowZero ? 'a number of at least 0' : 'a number above 0', name, text);
  }
  return number;
}

function oneOf<T extends string>(values: Values, name: string, choices: readonly T[]): T|undefined {
  const text = values[name] as T|undefined;
  if (text !== undefined && !choices.includes(text)) {
    throw expected(`one of ${choices.join(', ')}`, name, text);
  }
  return text;
}

function lengthsOf(values: Values): number[]|undefined {
  const text = values.lengths as string|undefined;
  if (text === undefined || text === 'none') {
    return text && [];
  }
  const lengths = text.split(',').map(Number);
  if (!lengths.every(n => Number.isSafeInteger(n) && n > 0)) {
    throw expected('whole numbers with commas between them, or none,', 'lengths', text);
  }
  return lengths.sort((a, b) => a - b);
}

function nonEmpty(values: Values, name: string): string|undefined {
  if (values[name] === '') {
    throw expected('a path', name, '');
  }
  return values[name] as string|undefined;
}

/** @throws UsageError on an option that is unknown or has a value that makes no sense. */
export function readOptions(args: readonly string[]): Options {
  const values = parse(args);
  const config: {-readonly [K in keyof RunConfig]?: RunConfig[K]} = {
    attention: oneOf(values, 'attention', ATTENTION_KINDS),
    steps: integer(values, 'steps', 1, 10_000_000),
    context: integer(values, 'context', 2, 1 << 20),
    layers: integer(values, 'layers', 1, 1000),
    heads: integer(values, 'heads', 1, 1024),
    width: integer(values, 'width', 1, 1 << 16),
    batch: integer(values, 'batch', 1, 1 << 16),
    learningRate: decimal(values, 'learning-rate', false),
    seed: integer(values, 'seed', 0, 2 ** 32 - 1),
  };
  for (const key of Object.keys(config) as Array<keyof RunConfig>) {
    if (config[key] === undefined) {
      delete config[key];
    }
  }
  const minutes = decimal(values, 'minutes', true);
  return {
    backend: oneOf(values, 'backend', BACKENDS) ?? 'auto',
    config,
    data: nonEmpty(values, 'data'),
    out: nonEmpty(values, 'out') ?? 'out',
    resume: values.resume === true,
    minutes: minutes === 0 ? Infinity : minutes,
    lengths: lengthsOf(values),
    sample: integer(values, 'sample', 0, 100_000) ?? 500,
    help: values.help === true,
  };
}
