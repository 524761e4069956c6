import {CPU_PARTS, cpuSuite} from './cpu_suite.js';
import type {CpuPart} from './cpu_suite.js';
import type {Measurement} from './measurements.js';
import type {AttentionKind, SuiteName} from './results.js';
import {attentionSuite, decodeSuite, hostSuite, trainingSuite} from './suites.js';
import {parseVariant} from './variants.js';

/** The lengths and sizes of the targets come first, so that they are measured if the time is short. */
const ATTENTION = {
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
export const OPTIONS = {
  bench: ATTENTION,
  peers: {...ATTENTION, kinds: 'onnxruntime'},
  decode: {
    kinds: 'copy,flash,standard',
    variants: 'float32,float16',
    keys: '4096,8192,16384,32768,65536,131072',
    heads: '32',
    keyHeads: '8,32',
    size: '128',
    splits: '0', // parts that the keys are split into; 0 leaves it to the plan
    copy: '1024', // MiB
  },
  host: {kinds: 'flash,standard', variants: 'float32,float16', batches: '40', calls: '50'},
  'train-bench': {
    kinds: 'flash,standard',
    context: '1024', layers: '6', heads: '8', width: '512', batch: '8', steps: '20', warmUp: '4',
  },
  cpu: {
    parts: CPU_PARTS.join(),
    backends: 'tensorflow,cpu', // of attention, decode and host
    threads: '', // of all that compute; default: as many as there are CPUs
    python: 'python3', // with PyTorch
    lengths: '1024,4096',
    heads: '16,8', // for each length
    sizes: '64,128',
    keys: '32768',
    contexts: '512,1024',
    steps: '5',
  },
} as const;

export type CommandName = keyof typeof OPTIONS;
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

function kindsOf<Kind extends string>(text: string, known: readonly Kind[], option = 'kinds'): Kind[] {
  const kinds = listOf(text) as Kind[];
  const unknown = kinds.find(kind => !known.includes(kind));
  if (unknown !== undefined) {
    throw new Error(`expected ${known.join(', ')} for --${option}, received ${unknown}`);
  }
  return kinds;
}

/** The suite whose rows a command gives. */
export const SUITE_OF: Record<Exclude<CommandName, 'cpu'>, SuiteName> = {
  bench: 'attention', peers: 'attention', decode: 'decode', host: 'host', 'train-bench': 'training',
};

/** What there is of other programs. */
export interface Peers {
  hasPyTorch: boolean;
}

/**
 * What a command measures.
 * @param options those of `OPTIONS[command]`.
 * @throws on a value that does not exist.
 */
export function measurementsOf(
    command: CommandName, options: Readonly<Record<string, string>>,
    {hasPyTorch}: Peers = {hasPyTorch: false}): Measurement[] {
  const o = options;
  const variants = () => listOf(o.variants).map(parseVariant);
  const number = (option: string) => numbersOf(o[option])[0];
  switch (command) {
    case 'bench':
    case 'peers':
      return attentionSuite({
        kinds: kindsOf<AttentionKind>(o.kinds, ['flash', 'standard', 'onnxruntime']), variants: variants(),
        lengths: numbersOf(o.lengths), sizes: numbersOf(o.sizes), tokens: number('tokens'), width: number('width'),
        heads: number('heads'), causal: o.causal === 'both' ? [false, true] : [o.causal === 'true'],
        tolerance: o.tolerance === '' ? undefined : number('tolerance'),
      });
    case 'decode':
      return decodeSuite({
        kinds: kindsOf(o.kinds, ['copy', 'flash', 'standard']), variants: variants(), keys: numbersOf(o.keys),
        queryHeads: number('heads'), keyHeads: numbersOf(o.keyHeads), headSize: number('size'),
        splits: numbersOf(o.splits), copyBytes: number('copy') * 2 ** 20,
      });
    case 'host':
      return hostSuite({
        kinds: kindsOf(o.kinds, ['flash', 'standard']), variants: variants(), batches: number('batches'),
        callsPerBatch: number('calls'),
      });
    case 'train-bench':
      return trainingSuite({
        kinds: kindsOf(o.kinds, ['flash', 'standard']), context: number('context'), layers: number('layers'),
        heads: number('heads'), width: number('width'), batch: number('batch'), steps: number('steps'),
        warmUpSteps: number('warmUp'),
      });
    case 'cpu': {
      const [lengths, heads] = [numbersOf(o.lengths), numbersOf(o.heads)];
      if (lengths.length !== heads.length) {
        throw new Error(`expected as many --heads as --lengths, received ${o.heads} for ${o.lengths}`);
      }
      return cpuSuite({
        parts: kindsOf<CpuPart>(o.parts, CPU_PARTS, 'parts'),
        backends: kindsOf(o.backends, ['tensorflow', 'cpu', 'wasm'], 'backends'), hasPyTorch, lengths, heads,
        sizes: numbersOf(o.sizes), keys: numbersOf(o.keys), contexts: numbersOf(o.contexts), steps: number('steps'),
      });
    }
  }
}
