import {createHash} from 'node:crypto';
import {
  accessSync, closeSync, constants, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync,
  writeSync,
} from 'node:fs';
import {dirname, join} from 'node:path';

import type {RunConfig} from '../gpt/config.js';
import type {NamedArray, Snapshot} from '../gpt/trainer.js';

import {decodeSafetensors, encodeSafetensors} from './safetensors.js';
import {UsageError} from './usage_error.js';

const FORMAT = 'tfjs-flash-attention gpt 1';

/** Which text a run learns from. */
export interface DataSource {
  /** Absent for the text that ships with the project. */
  readonly path?: string;
  /** Of the file's bytes. */
  readonly sha256: string;
}

/** A run as it is kept on disk. */
export interface Checkpoint {
  readonly config: RunConfig;
  readonly symbols: readonly string[];
  readonly data: DataSource;
  readonly snapshot: Snapshot;
}

export const checkpointPath = (outFolder: string): string => join(outFolder, 'checkpoint', 'model.safetensors');
export const previousPath = (outFolder: string): string => join(outFolder, 'checkpoint', 'previous.safetensors');

export function sha256(bytes: Uint8Array|string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function digestOf(arrays: readonly NamedArray[], run: string, state: string): string {
  const hash = createHash('sha256').update(run).update(state);
  for (const {name, shape, data} of arrays) {
    hash.update(JSON.stringify([name, shape])).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest('hex');
}

/** Puts a file in place in one step: whoever reads it finds the old one whole or the new one whole. */
export function writeAtomically(path: string, contents: Uint8Array|string) {
  mkdirSync(dirname(path), {recursive: true});
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeAll(temporary, typeof contents === 'string' ? Buffer.from(contents) : contents);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, {force: true});
    throw error;
  }
}

function writeAll(path: string, bytes: Uint8Array) {
  const file = openSync(path, 'w');
  try {
    for (let at = 0; at < bytes.length;) {
      at += writeSync(file, bytes, at);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** @throws UsageError when nothing could be saved there: better now than after the training. */
export function checkWritable(outFolder: string) {
  const folder = dirname(checkpointPath(outFolder));
  try {
    mkdirSync(folder, {recursive: true});
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw new UsageError(`cannot write to the folder ${folder}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** Weights, optimizer, place in the data and curves in one .safetensors file. */
export function saveCheckpoint(outFolder: string, {snapshot, ...run}: Checkpoint) {
  const {arrays, ...state} = snapshot;
  const notes = {run: JSON.stringify(run), state: JSON.stringify(state)};
  const metadata = {format: FORMAT, ...notes, sha256: digestOf(arrays, notes.run, notes.state)};
  writeAtomically(checkpointPath(outFolder), encodeSafetensors({arrays, metadata}));
}

/** Moves an earlier run's checkpoint aside, if there is one. */
export function keepPrevious(outFolder: string) {
  if (existsSync(checkpointPath(outFolder))) {
    renameSync(checkpointPath(outFolder), previousPath(outFolder));
  }
}

/** @throws UsageError when there is none, or it cannot be read. */
export function loadCheckpoint(outFolder: string): Checkpoint {
  const path = checkpointPath(outFolder);
  if (!existsSync(path)) {
    throw new UsageError(`nothing to resume: there is no ${path}`);
  }
  try {
    const {arrays, metadata} = decodeSafetensors(readFileSync(path));
    if (metadata.format !== FORMAT) {
      throw new Error(`its format is not "${FORMAT}"`);
    }
    if (metadata.sha256 !== digestOf(arrays, metadata.run, metadata.state)) {
      throw new Error('its contents do not match their checksum');
    }
    const run = JSON.parse(metadata.run) as Omit<Checkpoint, 'snapshot'>;
    const state = JSON.parse(metadata.state) as Omit<Snapshot, 'arrays'>;
    return {...run, snapshot: {...state, arrays}};
  } catch (error) {
    throw new UsageError(`cannot read the checkpoint ${path}: ${(error as Error).message.split('\n')[0]}`);
  }
}
