import {forwardFlops} from './flops.js';
import {computationLabel} from './measurements.js';
import type {AttentionKind, AttentionRow, Computation, DecodeKind} from './results.js';

/** What computed a row, as plots and tables call it. */
export function nameOf(
    {kind, computeType, plan, backend, native}: {kind: AttentionKind|DecodeKind}&Computation): string {
  return computationLabel(kind, plan ?? computeType, {backend, native});
}

/** The names that occur, this package's first. */
export function namesIn(rows: ReadonlyArray<{kind: AttentionKind|DecodeKind}&Computation>): string[] {
  const order: ReadonlyArray<AttentionKind|DecodeKind> =
      ['flash', 'pytorch', 'standard', 'onnxruntime', 'copy', 'read'];
  return [...new Set([...rows].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind)).map(nameOf))];
}

/** A shape under one mask, with the rows measured of it. */
export interface AttentionCase {
  shape: AttentionRow;
  rows: AttentionRow[];
}

/** The rows by shape and mask, in the order of their first. */
export function casesOf(rows: readonly AttentionRow[]): AttentionCase[] {
  const cases = new Map<string, AttentionCase>();
  for (const row of rows) {
    const key = [row.batch, row.heads, row.length, row.headSize, row.causal].join();
    const found = cases.get(key);
    if (found) {
      found.rows.push(row);
    } else {
      cases.set(key, {shape: row, rows: [row]});
    }
  }
  return [...cases.values()];
}

export type FigurePass = 'forward'|'backward';

/**
 * TFLOP/s of a pass of a case. What is measured is the forward pass, and forward and backward together; backward is
 * the difference, to a forward pass that is recorded for gradients where that was measured. Undefined where it was not
 * measured, or is less than what the two measurements differ by themselves.
 */
export function teraflops({shape, rows}: AttentionCase, name: string, pass: FigurePass): number|undefined {
  const find = (of: AttentionRow['pass']) => rows.find(row => row.pass === of && nameOf(row) === name);
  const forward = find('forward');
  if (pass === 'forward' || !forward) {
    return forward?.tflops;
  }
  const both = find('forward+backward');
  const difference = both ? both.medianMs - (both.recordedMs ?? forward.medianMs) : 0;
  return difference > 0 ? 2.5 * forwardFlops(shape) / difference / 1e9 : undefined;
}

/** Peak GPU memory of forward and backward, in MiB. */
export function peakMebibytes({rows}: AttentionCase, name: string): number|undefined {
  const row = rows.find(({pass, ...rest}) => pass === 'forward+backward' && nameOf(rest) === name);
  return row?.peakBytes === undefined ? undefined : row.peakBytes / 2 ** 20;
}
