/**
 * Measures this machine and writes benchmarks/results/<suite>-<device>.json, from which `npm run figures` makes the
 * README's tables and plots:
 *
 *   npm run bench                attention, forward and backward, against tfjs' own ops and onnxruntime if it is there
 *   npm run bench peers          onnxruntime alone, into the same file
 *   npm run bench decode         one query over many keys
 *   npm run bench host           JavaScript time of a call
 *   npm run bench train-bench    the GPT of npm start
 *   npm run bench cpu            all of that on the CPU: backends tensorflow and cpu, tfjs-node's own ops and PyTorch
 *
 * Options with their defaults are in command_line.ts and core/suite_options.ts. Every measurement runs in another
 * process under a time limit (--limit, seconds) and a run ends after --seconds; what was measured until then is in the
 * file.
 */
import {extname} from 'node:path';
import {fileURLToPath} from 'node:url';

import {findTfjsNode} from '../examples/train_gpt/tfjs_node.js';

import {parseCommand} from './command_line.js';
import type {Command} from './command_line.js';
import {describeRow} from './core/describe_row.js';
import {labelOf} from './core/measurements.js';
import type {Measurement, On} from './core/measurements.js';
import type {Environment, Row, SuiteName} from './core/results.js';
import {findOnnxruntime} from './onnxruntime/find.js';
import {findPyTorch} from './pytorch/find.js';
import {ResultsWriter} from './results_file.js';
import {supervise} from './supervise.js';
import type {Program} from './supervise.js';

/** A program of this folder; in a bundle, the one of its name that lies beside this one. */
const program = (name: string, inBundle: string): string => {
  const extension = extname(import.meta.url);
  return fileURLToPath(new URL(`${extension === '.ts' ? name : inBundle}${extension}`, import.meta.url));
};

const onnxruntime = findOnnxruntime();
let command: Command;
try {
  command = parseCommand(process.argv.slice(2), {
    onnxruntime: onnxruntime !== undefined, pytorch: findPyTorch,
    tfjsNode: () => findTfjsNode() !== undefined || 'tfjs-node is not there (docs/TFJS_NODE.md)',
  });
} catch (error) {
  console.error((error as Error).message);
  process.exit(2);
}
const {prefix, measurements, absent, dawn, out, seconds, secondsEach, threads, python} = command;
if (threads !== undefined) {
  process.env.FLASH_ATTENTION_THREADS = process.env.TF_NUM_INTRAOP_THREADS = String(threads);
}
const tfjsWorker = ({backend = command.backend, native}: On): Program => ({
  file: program('worker', 'bench_worker'),
  args: ['--backend', backend, '--dawn', dawn, ...native === false ? ['--native', 'off'] : []],
});
const pytorchWorker: Program = {
  file: fileURLToPath(new URL('pytorch/worker.py', import.meta.url)), args: ['--threads', String(threads)],
  execPath: python,
};
const onnxruntimeWorker =
    {file: program('onnxruntime/worker', 'onnxruntime_worker'), args: ['--folder', onnxruntime ?? '']};

const programOf = (m: Measurement): Program =>
    m.backend === 'pytorch' ? pytorchWorker :
    m.suite === 'attention' && m.kind === 'onnxruntime' ? onnxruntimeWorker : tfjsWorker(m);

const writers = new Map<SuiteName, ResultsWriter>();
let whole: Environment|undefined;
const tookPart: Array<Partial<Environment>> = [];
/** The results file of a measurement. */
const writerOf = ({suite}: Measurement): ResultsWriter => {
  const writer = writers.get(suite) ?? new ResultsWriter(out, `${prefix}${suite}`, whole!);
  if (!writers.has(suite)) {
    writers.set(suite, writer);
    tookPart.forEach(environment => writer.tookPart(environment));
    absent.forEach(({what, why}) => writer.skip({label: what, why}));
  }
  return writer;
};
let failures = 0;
const told = new Map<Measurement, Row[]>();
const say = (measurement: Measurement, text: string) => console.log(`${labelOf(measurement).padEnd(58)} ${text}`);

for (const {what, why} of absent) {
  console.log(`not measured: ${what}: ${why}`);
}
try {
  await supervise(
      measurements, programOf, tfjsWorker(measurements.find(m => m.backend !== 'pytorch') ?? {}),
      {seconds, secondsEach}, {
        environment(environment) {
          if (!whole) {
            // The first to start is tfjs, which names the device.
            whole = environment as Environment;
            console.log(`${whole.device}, backend ${whole.backend}, commit ${whole.commit}` +
                `${threads === undefined ? '' : `, threads: ${threads}`}`);
          }
          tookPart.push(environment);
          writers.forEach(writer => writer.tookPart(environment));
        },
        row(measurement, row) {
          told.set(measurement, [...told.get(measurement) ?? [], row]);
          writerOf(measurement).add(labelOf(measurement), row);
          say(measurement, describeRow(measurement.suite, row));
        },
        skipped(measurement, why, failed) {
          failures += Number(failed);
          say(measurement, `${failed ? 'FAILED' : 'skipped'}: ${why}`);
          const writer = writerOf(measurement);
          if (failed) {
            writer.remove(told.get(measurement) ?? []);
          }
          writer.skip({label: labelOf(measurement), why});
        },
      });
} catch (error) {
  console.error((error as Error).message);
  failures++;
}
const written = [...writers.values()].map(({path}) => path).join(', ');
console.log(written === '' ? 'nothing was measured' : `written: ${written}`);
process.exit(failures > 0 ? 1 : 0);
