import {readFileSync, statSync} from 'node:fs';
import {basename} from 'node:path';
import {fileURLToPath} from 'node:url';

import {normalise, smallestText} from '../gpt/text.js';

import {sha256} from './checkpoint.js';
import type {DataSource} from './checkpoint.js';
import {UsageError} from './usage_error.js';

const BUNDLED = fileURLToPath(new URL('../data/moby_dick.txt', import.meta.url));

export interface LoadedText {
  readonly name: string;
  readonly text: string;
  readonly source: DataSource;
}

/** @throws UsageError when there is no such file, or no text in it that can be learned from. */
export function loadText(path: string|undefined): LoadedText {
  const file = path ?? BUNDLED;
  let bytes: Buffer;
  try {
    if (!statSync(file).isFile()) {
      throw new UsageError(`expected a text file for --data, received ${file}, which is not a file`);
    }
    bytes = readFileSync(file);
  } catch (error) {
    if (error instanceof UsageError) {
      throw error;
    }
    const {code, message} = error as NodeJS.ErrnoException;
    throw new UsageError(`cannot read the text ${file}: ${code ?? message}`);
  }
  if (bytes.length === 0) {
    throw new UsageError(`the text ${file} is empty`);
  }
  let text: string;
  try {
    text = normalise(new TextDecoder('utf-8', {fatal: true}).decode(bytes));
  } catch {
    throw new UsageError(`the text ${file} is not UTF-8`);
  }
  checkLength(text, file, 2);
  return {name: basename(file), text, source: {path, sha256: sha256(bytes)}};
}

/** @throws UsageError when batches of this context cannot be drawn from the text. */
export function checkLength(text: string, name: string, context: number) {
  const least = smallestText(context);
  if (text.length < least) {
    throw new UsageError(
        `the text ${name} is too short: ${text.length} symbols, and a context of ${context} needs ${least}`);
  }
}
