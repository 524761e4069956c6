// @ts-check
// What an earlier run has made of the package, in a file there that is written last. A second run goes by it.
import {readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

import {sizeOf} from './contents.mjs';

const NAME = 'tfjs_flash_attention_setup.json';

/**
 * @typedef {object} State
 * @property {string} tfjsNode version of the package
 * @property {string} tensorflow what was built against, in words
 * @property {string | null} libDir where the libraries are used in place; null: they are in the package
 * @property {boolean} isDownload
 * @property {Record<string, number>} files path → bytes of what must be there; relative paths are in the package
 */

/** @param {string} packageDir @returns {State | undefined} */
export function readState(packageDir) {
  try {
    return JSON.parse(readFileSync(join(packageDir, NAME), 'utf8'));
  } catch {
    return undefined;
  }
}

/** @param {string} packageDir @param {State} state */
export function writeState(packageDir, state) {
  writeFileSync(join(packageDir, NAME), `${JSON.stringify(state, null, 1)}\n`);
}

/** Before anything is changed: from here on the package is half done. */
export function removeState(/** @type {string} */ packageDir) {
  rmSync(join(packageDir, NAME), {force: true});
}

/**
 * @param {State | undefined} state
 * @param {{tfjsNode: string, libDir: string | undefined, download: boolean}} wanted libDir: only this TensorFlow will
 *     do; download: only one that pip got
 * @param {(file: string) => number | undefined} size of a file that the state names
 * @returns {string[]} what is wrong with it; nothing: all is there. Without a state there is nothing to repair either.
 */
export function problems(state, wanted, size) {
  if (!state) {
    return ['it has not been set up, or not to the end'];
  }
  const found = [];
  if (state.tfjsNode !== wanted.tfjsNode) {
    found.push(`it was set up for version ${state.tfjsNode}`);
  }
  if (wanted.libDir !== undefined && state.libDir !== wanted.libDir) {
    found.push(`it was built against ${state.tensorflow}`);
  }
  if (wanted.download && !state.isDownload) {
    found.push(`it was built against ${state.tensorflow}, which pip did not download for it`);
  }
  for (const [file, bytes] of Object.entries(state.files)) {
    const actual = size(file);
    if (actual !== bytes) {
      found.push(actual === undefined ? `${file} is gone` : `${file} has ${actual} bytes, not ${bytes}`);
    }
  }
  return found;
}

/** The sizes of files for a state. @param {string[]} files @param {(file: string) => string} place */
export function sizes(files, place) {
  return Object.fromEntries(files.map(file => [file, /** @type {number} */ (sizeOf(place(file)))]));
}
