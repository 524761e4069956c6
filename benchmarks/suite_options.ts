import {parseArgs} from 'node:util';

import type {Measurement} from './core/measurements.js';
import type {AttentionKind, SuiteName} from './core/results.js';
import {attentionSuite, decodeSuite, hostSuite, trainingSuite} from './core/suites.js';
import {parseVariant} from './core/variants.js';

/** What a command line asks for. */
export interface Command {
  suite: SuiteName;
  measurements: Measurement[];
  backend: string;
  /** More of Dawn's switches to enable, separated by commas. */
  dawn: string;
  /** Folder of the results file. */
  out: string;
  seconds: number;
  secondsEach: number;
}

/** For every suite. */
const COMMON = {
  backend: 'webgpu',
  dawn: '',
  out: 'benchmarks/results',
  seconds: '0', // 0 is no limit
  limit: '25', // seconds of one measurement
};

/** The lengths and sizes of the targets come first, so that they are measured if the time is short. */
const ATTENTION = {
  ...COMMON,
  kinds: 'flash,standard',
  variants: 'float32,float16',
  lengths: '4096,1024,16384',
  sizes: '64,128',
  tokens: '16384', // B·N of the sweep
  width: '2048', // H·D of the sweep
  heads: '16', // of one sequence at the same lengths; 0 leaves that out
  causal: 'both', // false, true or both
  tolerance: '', // relative error that is still timed, instead of what the precision allows
};

/** Options of each command with their defaults. */
const OPTIONS = {
  bench: ATTENTION,
  peers: {...ATTENTION, kinds: 'onnxruntime'},
  decode: {
    ...COMMON,
    kinds: 'copy,flash,standard',
    variants: 'float32,float16',
    keys: '4096,8192,16384,32768,65536,131072',
    heads: '32',
    keyHeads: '8,32',
    size: '128',
    splits: '0', // parts that the keys are split into; 0 leaves it to the plan
    copy: '1024', // MiB
  },
  host: {...COMMON, kinds: 'flash,standard', variants: 'float32,float16', batches: '40', calls: '50'},
  'train-bench': {
    ...COMMON,
    limit: '60',
    kinds: 'flash,standard',
    context: '1024', layers: '6', heads: '8', width: '512', batch: '8', steps: '20', warmUp: '4',
  },
} as const;

type CommandName = keyof typeof OPTIONS;
export const COMMANDS = Object.keys(OPTIONS) as CommandName[];

function listOf(text: string): string[] {
  return text.split(',').filter(Boolean);
}

function numbersOf(text: string): number[] {
  const numbers = listOf(text).map(Number);
  if (!numbers.every(Number.isFinite)) {
    throw new Error(`expected numbers separated by commas, received ${text}`);
  }
  return numbers;
}

function kindsOf<Kind extends string>(text: string, known: readonly Kind[]): Kind[] {
  const kinds = listOf(text) as Kind[];
  const unknown = kinds.find(kind => !known.includes(kind));
  if (unknown !== undefined) {
    throw new Error(`expected ${known.join(', ')} for --kinds, received ${unknown}`);
  }
  return kinds;
}

/**
 * @param args the command, `bench` if none is named, and its options.
 * @param hasOnnxruntime whether it takes part where the kinds are not said.
 * @throws on a command, an option or a value that does not exist.
 */
export function parseCommand(args: readonly string[], hasOnnxruntime: boolean): Command {
  const [name, rest] = args.length > 0 && !args[0].startsWith('-') ? [args[0], args.slice(1)] : ['bench', args];
  if (!(COMMANDS as string[]).includes(name)) {
    throw new Error(`expected ${COMMANDS.join(', ')}, received ${name}`);
  }
  const command = name as CommandName;
  const defaults: Record<string, string> = OPTIONS[command];
  const {values} = parseArgs({
    args: [...rest],
    options: Object.fromEntries(Object.entries(defaults).map(
        ([option, value]) => [option, {type: 'string' as const, default: value}])),
  });
  const o = values as Record<string, string>;
  const variants = () => listOf(o.variants).map(parseVariant);
  const number = (option: string) => numbersOf(o[option])[0];
  const common = {
    backend: o.backend, dawn: o.dawn, out: o.out, seconds: number('seconds'), secondsEach: number('limit'),
  };
  switch (command) {
    case 'bench':
    case 'peers': {
      const all: readonly AttentionKind[] = ['flash', 'standard', 'onnxruntime'];
      const kinds = kindsOf(o.kinds, all);
      const isDefault = command === 'bench' && o.kinds === ATTENTION.kinds;
      return {
        ...common, suite: 'attention',
        measurements: attentionSuite({
          kinds: isDefault && hasOnnxruntime ? all : kinds, variants: variants(), lengths: numbersOf(o.lengths),
          sizes: numbersOf(o.sizes), tokens: number('tokens'), width: number('width'), heads: number('heads'),
          causal: o.causal === 'both' ? [false, true] : [o.causal === 'true'],
          tolerance: o.tolerance === '' ? undefined : number('tolerance'),
        }),
      };
    }
    case 'decode':
      return {
        ...common, suite: 'decode',
        measurements: decodeSuite({
          kinds: kindsOf(o.kinds, ['copy', 'flash', 'standard']), variants: variants(), keys: numbersOf(o.keys),
          queryHeads: number('heads'), keyHeads: numbersOf(o.keyHeads), headSize: number('size'),
          splits: numbersOf(o.splits), copyBytes: number('copy') * 2 ** 20,
        }),
      };
    case 'host':
      return {
        ...common, suite: 'host',
        measurements: hostSuite({
          kinds: kindsOf(o.kinds, ['flash', 'standard']), variants: variants(), batches: number('batches'),
          callsPerBatch: number('calls'),
        }),
      };
    case 'train-bench':
      return {
        ...common, suite: 'training',
        measurements: trainingSuite({
          kinds: kindsOf(o.kinds, ['flash', 'standard']), context: number('context'), layers: number('layers'),
          heads: number('heads'), width: number('width'), batch: number('batch'), steps: number('steps'),
          warmUpSteps: number('warmUp'),
        }),
      };
  }
}
