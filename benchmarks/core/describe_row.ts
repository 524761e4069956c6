import type {Measurement} from './measurements.js';
import type {AttentionRow, DecodeRow, HostRow, Row, TrainingRow} from './results.js';

const milliseconds = (row: AttentionRow|DecodeRow): string =>
  `${row.medianMs.toFixed(3).padStart(9)} ms ±${(100 * row.spread).toFixed(0).padStart(2)}%` +
  `${row.gpuMs === undefined ? '' : `, GPU ${row.gpuMs.toFixed(3)} ms`}`;

const speed = (tflops: number): string =>
    tflops < 1 ? `${(1000 * tflops).toFixed(1)} GFLOP/s` : `${tflops.toFixed(2)} TFLOP/s`;

/** A row in one line. */
export function describeRow(suite: Measurement['suite'], row: Row): string {
  switch (suite) {
    case 'attention': {
      const {pass, tflops, peakBytes} = row as AttentionRow;
      const memory = peakBytes === undefined ? '' : `, peak ${(peakBytes / 2 ** 20).toFixed(1)} MiB`;
      return `${pass.padEnd(17)}${milliseconds(row as AttentionRow)}, ${speed(tflops)}${memory}`;
    }
    case 'decode':
      return `${milliseconds(row as DecodeRow)}, ${(row as DecodeRow).gigabytesPerSecond.toPrecision(3)} GB/s`;
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
