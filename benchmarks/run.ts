/**
 * Measures this machine and writes benchmarks/results/<suite>-<device>.json, from which `npm run figures` makes the
 * README's tables and plots:
 *
 *   npm run bench                attention, forward and backward, against tfjs' own ops and onnxruntime if it is there
 *   npm run bench peers          onnxruntime alone, into the same file
 *   npm run bench decode         one query over many keys
 *   npm run bench host           JavaScript time of a call
 *   npm run bench train-bench    the GPT of npm start
 *
 * Options with their defaults are in command_line.ts and core/suite_options.ts. Every measurement runs in another
 * process under a time limit (--limit, seconds) and a run ends after --seconds; what was measured until then is in the
 * file.
 */
import {extname} from 'node:path';
import {fileURLToPath} from 'node:url';

import {parseCommand} from './command_line.js';
import type {Command} from './command_line.js';
import {describeRow} from './core/describe_row.js';
import {labelOf} from './core/measurements.js';
import type {Measurement} from './core/measurements.js';
import type {Environment, Row} from './core/results.js';
import {findOnnxruntime} from './onnxruntime/find.js';
import {ResultsWriter} from './results_file.js';
import {supervise} from './supervise.js';

/** A program of this folder; in a bundle, the one of its name that lies beside this one. */
const program = (name: string, inBundle: string): string => {
  const extension = extname(import.meta.url);
  return fileURLToPath(new URL(`${extension === '.ts' ? name : inBundle}${extension}`, import.meta.url));
};

const onnxruntime = findOnnxruntime();
let command: Command;
try {
  command = parseCommand(process.argv.slice(2), onnxruntime !== undefined);
} catch (error) {
  console.error((error as Error).message);
  process.exit(2);
}
const {suite, measurements, backend, dawn, out, seconds, secondsEach} = command;
const tfjsWorker = {file: program('worker', 'bench_worker'), args: ['--backend', backend, '--dawn', dawn]};
const onnxruntimeWorker =
    {file: program('onnxruntime/worker', 'onnxruntime_worker'), args: ['--folder', onnxruntime ?? '']};

let writer: ResultsWriter|undefined;
let failures = 0;
const told = new Map<Measurement, Row[]>();
const say = (measurement: Measurement, text: string) => console.log(`${labelOf(measurement).padEnd(58)} ${text}`);

try {
  await supervise(
      measurements, m => m.suite === 'attention' && m.kind === 'onnxruntime' ? onnxruntimeWorker : tfjsWorker,
      tfjsWorker, {seconds, secondsEach}, {
        environment(environment) {
          if (!writer) {
            // The first to start is tfjs, which names the device.
            const whole = environment as Environment;
            console.log(`${whole.device}, backend ${whole.backend}, commit ${whole.commit}`);
            writer = new ResultsWriter(out, suite, whole);
          }
          writer.tookPart(environment);
        },
        row(measurement, row) {
          told.set(measurement, [...told.get(measurement) ?? [], row]);
          writer!.add(labelOf(measurement), row);
          say(measurement, describeRow(measurement.suite, row));
        },
        skipped(measurement, why, failed) {
          failures += Number(failed);
          say(measurement, `${failed ? 'FAILED' : 'skipped'}: ${why}`);
          if (failed) {
            writer?.remove(told.get(measurement) ?? []);
          }
          writer?.skip({label: labelOf(measurement), why});
        },
      });
} catch (error) {
  console.error((error as Error).message);
  failures++;
}
console.log(writer ? `written: ${writer.path}` : 'nothing was measured');
process.exit(failures > 0 ? 1 : 0);
