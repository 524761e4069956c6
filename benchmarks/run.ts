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
 * Options with their defaults are in suite_options.ts. Every measurement runs in another process under a time limit
 * (--limit, seconds) and a run ends after --seconds; what was measured until then is in the file.
 */
import {extname} from 'node:path';
import {fileURLToPath} from 'node:url';

import {labelOf} from './core/measurements.js';
import type {Measurement} from './core/measurements.js';
import type {AttentionRow, DecodeRow, Environment, HostRow, Row, TrainingRow} from './core/results.js';
import {findOnnxruntime} from './onnxruntime/find.js';
import {ResultsWriter} from './results_file.js';
import {parseCommand} from './suite_options.js';
import {supervise} from './supervise.js';

/** A program of this folder; in a bundle, the one of its name that lies beside this one. */
const program = (name: string, inBundle: string): string => {
  const extension = extname(import.meta.url);
  return fileURLToPath(new URL(`${extension === '.ts' ? name : inBundle}${extension}`, import.meta.url));
};

const milliseconds = (row: AttentionRow|DecodeRow): string =>
  `${row.medianMs.toFixed(3).padStart(9)} ms ±${(100 * row.spread).toFixed(0).padStart(2)}%` +
  `${row.gpuMs === undefined ? '' : `, GPU ${row.gpuMs.toFixed(3)} ms`}`;

/** A row in one line. */
function describe(suite: Measurement['suite'], row: Row): string {
  switch (suite) {
    case 'attention': {
      const {pass, tflops, peakBytes} = row as AttentionRow;
      const memory = peakBytes === undefined ? '' : `, peak ${(peakBytes / 2 ** 20).toFixed(1)} MiB`;
      return `${pass.padEnd(17)}${milliseconds(row as AttentionRow)}, ${tflops.toFixed(2)} TFLOP/s${memory}`;
    }
    case 'decode':
      return `${milliseconds(row as DecodeRow)}, ${(row as DecodeRow).gigabytesPerSecond.toFixed(0)} GB/s`;
    case 'host': {
      const {pass, medianMicroseconds, leastMicroseconds, heapBytesPerCall} = row as HostRow;
      return `${pass.padEnd(17)}${medianMicroseconds.toFixed(1).padStart(9)} µs a call, ` +
          `${leastMicroseconds.toFixed(1)} at least, heap ${heapBytesPerCall?.toFixed(0)} bytes a call`;
    }
    case 'training': {
      const {tokensPerSecond, medianMs, firstLoss, lastLoss, peakBytes} = row as TrainingRow;
      return `${tokensPerSecond.toFixed(0)} tokens/s, ${medianMs.toFixed(0)} ms a step, ` +
          `peak ${(peakBytes / 2 ** 20).toFixed(0)} MiB, loss ${firstLoss.toFixed(3)} → ${lastLoss.toFixed(3)}`;
    }
  }
}

const onnxruntime = findOnnxruntime();
const command = parseCommand(process.argv.slice(2), onnxruntime !== undefined);
const {suite, measurements, backend, dawn, out, seconds, secondsEach} = command;
const tfjsWorker = {file: program('worker', 'bench_worker'), args: ['--backend', backend, '--dawn', dawn]};
const onnxruntimeWorker =
    {file: program('onnxruntime/worker', 'onnxruntime_worker'), args: ['--folder', onnxruntime ?? '']};

let writer: ResultsWriter|undefined;
let failures = 0;
const told = new Map<Measurement, Row[]>();
const say = (measurement: Measurement, text: string) => console.log(`${labelOf(measurement).padEnd(58)} ${text}`);

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
        say(measurement, describe(measurement.suite, row));
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
console.log(writer ? `written: ${writer.path}` : 'nothing was measured');
process.exit(failures > 0 || !writer ? 1 : 0);
