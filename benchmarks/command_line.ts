import {availableParallelism} from 'node:os';
import {parseArgs} from 'node:util';

import type {Measurement} from './core/measurements.js';
import {COMMANDS, measurementsOf, OPTIONS} from './core/suite_options.js';
import type {CommandName} from './core/suite_options.js';

/** What a command line asks for. */
export interface Command {
  /** What the names of the results files begin with, before the suite. */
  prefix: string;
  measurements: Measurement[];
  /** Why something that was asked for is not among the measurements. */
  absent: Array<{what: string, why: string}>;
  backend: string;
  /** More of Dawn's switches to enable, separated by commas. */
  dawn: string;
  /** Folder of the results file. */
  out: string;
  /** For all measurements; 0 is no limit. */
  seconds: number;
  secondsEach: number;
  /** For all that compute on the CPU; undefined leaves it to them. */
  threads?: number;
  python: string;
}

/** What other programs there are, looked for where a command needs them; text says why one is not there. */
export interface Found {
  onnxruntime: boolean;
  pytorch(python: string): true|string;
  tfjsNode(): true|string;
}

/** Options of every command with their defaults. */
const COMMON = {backend: 'webgpu', dawn: '', out: 'benchmarks/results', seconds: '0', limit: '25'};
/** Of a measurement, where it takes longer. */
const LIMITS: Partial<Record<string, string>> = {'train-bench': '90', cpu: '90'};

/**
 * @param args the command, `bench` if none is named, and its options.
 * @param found onnxruntime takes part in `bench` where the kinds are not said, the others in `cpu`.
 * @throws on a command, an option or a value that does not exist.
 */
export function parseCommand(args: readonly string[], found: Found): Command {
  const [name, rest] = args.length > 0 && !args[0].startsWith('-') ? [args[0], args.slice(1)] : ['bench', args];
  if (!(COMMANDS as string[]).includes(name)) {
    throw new Error(`expected ${COMMANDS.join(', ')}, received ${name}`);
  }
  const command = name as CommandName;
  const defaults: Record<string, string> = {
    ...COMMON, ...LIMITS[command] && {limit: LIMITS[command]}, ...OPTIONS[command],
    ...command === 'bench' && found.onnxruntime && {kinds: `${OPTIONS.bench.kinds},onnxruntime`},
  };
  const {values} = parseArgs({
    args: [...rest],
    options: Object.fromEntries(Object.entries(defaults).map(
        ([option, value]) => [option, {type: 'string' as const, default: value}])),
  });
  const options = values as Record<string, string>;
  const {backend, dawn, out} = options;
  const [seconds, secondsEach] = [options.seconds, options.limit].map(Number);
  if (!(seconds >= 0 && secondsEach > 0)) {
    throw new Error(`expected numbers for --seconds and --limit, received ${options.seconds} and ${options.limit}`);
  }
  const common = {backend, dawn, out, seconds, secondsEach, python: options.python ?? ''};
  if (command !== 'cpu') {
    return {...common, prefix: '', measurements: measurementsOf(command, options), absent: []};
  }
  const absent: Command['absent'] = [];
  const isThere = (what: string, answer: true|string) => answer === true || (absent.push({what, why: answer}), false);
  const hasPyTorch = isThere('PyTorch', found.pytorch(options.python));
  const backends = options.backends.split(',')
      .filter(name => name !== 'tensorflow' || isThere('backend tensorflow', found.tfjsNode())).join();
  const threads = options.threads === '' ? availableParallelism() : Number(options.threads);
  if (!Number.isSafeInteger(threads) || threads < 1) {
    throw new Error(`expected a whole number above 0 for --threads, received ${options.threads}`);
  }
  const measurements = measurementsOf(command, {...options, backends}, {hasPyTorch});
  return {...common, prefix: 'cpu-', measurements, absent, threads};
}
