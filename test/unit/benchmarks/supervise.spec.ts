import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import type {AttentionMeasurement, Measurement} from '../../../benchmarks/core/measurements.js';
import type {AttentionRow} from '../../../benchmarks/core/results.js';
import {supervise} from '../../../benchmarks/supervise.js';
import type {Limits} from '../../../benchmarks/supervise.js';

const file = fileURLToPath(new URL('../../support/fake_worker.mjs', import.meta.url));

function measurement(label: string, length = 1): AttentionMeasurement {
  return {
    suite: 'attention', kind: 'flash', variant: {label, computeType: 'float32'}, batch: 1, heads: 1, length,
    headSize: 1, causal: false, series: 'sweep',
  };
}

/** Runs it without the loader of TypeScript that these specs run with: a busy machine takes seconds to start that. */
const program = (...args: string[]) => ({file, args, execPath: process.execPath});

interface Told {
  lengths: number[];
  skipped: Array<[string, string, boolean]>;
  processes: Set<string>;
  seconds: number;
}

async function told(labels: readonly string[], limits: Partial<Limits> = {}, args: string[] = []): Promise<Told> {
  const result: Told = {lengths: [], skipped: [], processes: new Set(), seconds: 0};
  const start = performance.now();
  const measurements = labels.map((label, n) => measurement(label, 10 * n));
  await supervise(measurements, () => program(...args), program(...args), {seconds: 0, secondsEach: 20, ...limits}, {
    environment: ({commit}) => result.processes.add(commit!),
    row: (_, row) => result.lengths.push((row as AttentionRow).length),
    skipped: (m: Measurement, why, failed) =>
      result.skipped.push([(m as AttentionMeasurement).variant.label, why, failed]),
  });
  result.seconds = (performance.now() - start) / 1000;
  return result;
}

describe('supervised measurements', () => {
  it('come one after the other from one process', async () => {
    const {lengths, skipped, processes} = await told(['rows', 'skip', 'rows']);
    expect(lengths).toEqual([0, 1, 20, 21]);
    expect(skipped).toEqual([['skip', 'does not fit', false]]);
    expect(processes.size).toBe(1);
  });

  it('go on in another process after an error or a crash', async () => {
    const {lengths, skipped, processes} = await told(['fail', 'crash', 'exit', 'rows']);
    expect(lengths).toEqual([0, 30, 31]);
    expect(skipped).toEqual([
      ['fail', 'wrong results', true], ['crash', 'its process ended (SIGSEGV)', true],
      ['exit', 'its process ended (exit code 3)', true],
    ]);
    expect(processes.size).toBe(4);
  });

  it('are ended when one takes too long, and keep what it told before', async () => {
    const {lengths, skipped, seconds} = await told(['hang', 'rows'], {secondsEach: 1});
    expect(lengths).toEqual([0, 10, 11]);
    expect(skipped).toEqual([['hang', 'it did not end within 1 s', false]]);
    expect(seconds).toBeLessThan(15);
  });

  it('end all together when the time is over', async () => {
    const {lengths, skipped, seconds} = await told(['rows', 'hang', 'rows'], {seconds: 5});
    expect(lengths).toEqual([0, 1, 10]);
    expect(skipped).toEqual([
      ['hang', 'the 5 s given were over', false], ['rows', 'the 5 s given were over', false],
    ]);
    expect(seconds).toBeLessThan(15);
  });

  it('say why where no process starts', async () => {
    await expectAsync(told(['rows'], {}, ['--broken'])).toBeRejectedWithError(/no adapter/);
    const start = performance.now();
    await expectAsync(told(['rows'], {seconds: 2}, ['--silent'])).toBeRejectedWithError(/did not start within 2 s/);
    expect(performance.now() - start).toBeLessThan(15_000);
  });

  it('come from another program than Node, told where its channel is', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'peer-'));
    const peer = join(folder, 'peer.sh');
    // Answers the first line that comes with a row, in the form that Node's IPC has.
    writeFileSync(peer, [
      '#!/bin/sh', 'eval "exec 3<&$NODE_CHANNEL_FD 4>&$NODE_CHANNEL_FD"',
      'echo \'{"type":"ready","environment":{"commit":"sh"}}\' >&4', 'read -r line <&3',
      'echo \'{"type":"row","row":{"length":7}}\' >&4', 'echo \'{"type":"done"}\' >&4', 'read -r line <&3', '',
    ].join('\n'));
    const told: Array<number|string> = [];
    const shell = {file: peer, args: [], execPath: '/bin/sh'};
    await supervise([measurement('rows')], () => shell, shell, {seconds: 0, secondsEach: 20}, {
      environment: ({commit}) => told.push(commit!), row: (_, row) => told.push((row as AttentionRow).length),
      skipped: (_, why) => told.push(why),
    });
    rmSync(folder, {recursive: true});
    expect(told).toEqual(['sh', 7]);
  });

  it('go on without a program that does not start, if it is not the first', async () => {
    const told: string[] = [];
    await supervise(
        [measurement('rows', 1), measurement('rows', 2), measurement('rows', 3)],
        m => (m as AttentionMeasurement).length === 2 ? program('--broken') : program(), program(),
        {seconds: 0, secondsEach: 20}, {
          environment: () => undefined,
          row: (_, row) => told.push(`row ${(row as AttentionRow).length}`),
          skipped: (_, why) => told.push(why),
        });
    expect(told).toEqual(['row 1', 'row 2', 'no adapter', 'row 3', 'row 4']);
  });
});
