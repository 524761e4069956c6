import {mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';

import {
  checkpointPath, checkWritable, keepPrevious, loadCheckpoint, previousPath, saveCheckpoint, writeAtomically,
} from '../../../examples/train_gpt/checkpoint.js';
import type {Checkpoint} from '../../../examples/train_gpt/checkpoint.js';
import {decodeSafetensors, encodeSafetensors} from '../../../examples/train_gpt/safetensors.js';
import {UsageError} from '../../../examples/train_gpt/usage_error.js';

const CHECKPOINT: Checkpoint = {
  config: {
    attention: 'standard', steps: 9, context: 4, layers: 1, heads: 1, width: 2, batch: 3, learningRate: 0.1, seed: 7,
  },
  symbols: ['\n', 'a', '“', '🐋'],
  data: {path: 'some text.txt', sha256: 'abc'},
  snapshot: {
    step: 2,
    rngState: 4_294_967_295,
    losses: [1.1, 0.1 + 0.2],
    validation: [{step: 0, loss: 3}],
    arrays: [
      {name: 'matrix', shape: [2, 3], data: Float32Array.of(1, -2, 3.5, 1e-38, Infinity, 0.1)},
      {name: 'scalar', shape: [], data: Float32Array.of(42)},
      {name: 'empty', shape: [0, 4], data: new Float32Array(0)},
    ],
  },
};

describe('checkpoints', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'checkpoint-'));
  });

  afterEach(() => rmSync(folder, {recursive: true, force: true}));

  it('come back as they were saved', () => {
    saveCheckpoint(folder, CHECKPOINT);
    expect(loadCheckpoint(folder)).toEqual(CHECKPOINT);
    expect(readdirSync(dirname(checkpointPath(folder)))).toEqual(['model.safetensors']);
  });

  it('are refused in one line wherever a byte is changed or missing', () => {
    saveCheckpoint(folder, CHECKPOINT);
    const path = checkpointPath(folder);
    const whole = readFileSync(path);
    const damaged = (bytes: Buffer) => {
      writeFileSync(path, bytes);
      let caught: unknown;
      try {
        loadCheckpoint(folder);
      } catch (error) {
        caught = error;
      }
      return caught;
    };
    for (let at = 0; at < whole.length; at += 7) {
      const bytes = Buffer.from(whole);
      bytes[at] ^= 0x10;
      const error = damaged(bytes);
      expect(error).withContext(`byte ${at}`).toBeInstanceOf(UsageError);
      expect((error as Error)?.message).not.toContain('\n');
    }
    for (const length of [0, 5, 8, 100, whole.length - 1]) {
      expect(damaged(whole.subarray(0, length))).withContext(`${length} bytes`).toBeInstanceOf(UsageError);
    }
    expect(damaged(Buffer.from('not a checkpoint at all'))).toBeInstanceOf(UsageError);
  });

  it('are refused where there are none', () => {
    expect(() => loadCheckpoint(folder)).toThrowError(UsageError, /nothing to resume/);
  });

  it('of an earlier run are kept aside', () => {
    keepPrevious(folder);
    saveCheckpoint(folder, CHECKPOINT);
    const bytes = readFileSync(checkpointPath(folder));
    keepPrevious(folder);
    expect(readFileSync(previousPath(folder))).toEqual(bytes);
    expect(() => loadCheckpoint(folder)).toThrowError(UsageError);
  });

  it('leave nothing half-written behind when writing fails', () => {
    const path = join(folder, 'in the way');
    mkdirSync(join(path, 'full'), {recursive: true});
    expect(() => writeAtomically(path, 'new')).toThrow();
    expect(readdirSync(folder)).toEqual(['in the way']);
    expect(readdirSync(path)).toEqual(['full']);
  });

  it('cannot go where a file is in the way, which is said before the training', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(() => checkWritable(join(folder, 'file'))).toThrowError(UsageError, /cannot write/);
  });
});

describe('safetensors', () => {
  it('begin with the length of an aligned JSON header', () => {
    const bytes = encodeSafetensors(
        {arrays: [{name: 'x', shape: [2], data: Float32Array.of(1, 2)}], metadata: {key: 'value “quoted”'}});
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).toBe(0);
    expect(JSON.parse(bytes.toString('utf8', 8, 8 + length)) as unknown).toEqual({
      __metadata__: {key: 'value “quoted”'},
      x: {dtype: 'F32', shape: [2], data_offsets: [0, 8]},
    });
    expect(bytes.length).toBe(8 + length + 8);
    expect(bytes.readFloatLE(8 + length + 4)).toBe(2);
    expect(decodeSafetensors(bytes).arrays[0].data).toEqual(Float32Array.of(1, 2));
  });
});
