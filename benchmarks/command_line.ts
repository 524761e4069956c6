import {parseArgs} from 'node:util';

import type {Measurement} from './core/measurements.js';
import type {SuiteName} from './core/results.js';
import {COMMANDS, measurementsOf, OPTIONS, SUITE_OF} from './core/suite_options.js';
import type {CommandName} from './core/suite_options.js';

/** What a command line asks for. */
export interface Command {
  suite: SuiteName;
  measurements: Measurement[];
  backend: string;
  /** More of Dawn's switches to enable, separated by commas. */
  dawn: string;
  /** Folder of the results file. */
  out: string;
  /** For all measurements; 0 is no limit. */
  seconds: number;
  secondsEach: number;
}

/** Options of every command with their defaults. */
const COMMON = {backend: 'webgpu', dawn: '', out: 'benchmarks/results', seconds: '0', limit: '25'};
/** Of a measurement, where it takes longer. */
const TRAINING_LIMIT = '90';

/**
 * @param args the command, `bench` if none is named, and its options.
 * @param hasOnnxruntime whether it takes part in `bench` where the kinds are not said.
 * @throws on a command, an option or a value that does not exist.
 */
export function parseCommand(args: readonly string[], hasOnnxruntime: boolean): Command {
  const [name, rest] = args.length > 0 && !args[0].startsWith('-') ? [args[0], args.slice(1)] : ['bench', args];
  if (!(COMMANDS as string[]).includes(name)) {
    throw new Error(`expected ${COMMANDS.join(', ')}, received ${name}`);
  }
  const command = name as CommandName;
  const defaults: Record<string, string> = {
    ...COMMON, ...command === 'train-bench' && {limit: TRAINING_LIMIT}, ...OPTIONS[command],
    ...command === 'bench' && hasOnnxruntime && {kinds: `${OPTIONS.bench.kinds},onnxruntime`},
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
  return {
    suite: SUITE_OF[command], measurements: measurementsOf(command, options), backend, dawn, out, seconds, secondsEach,
  };
}
