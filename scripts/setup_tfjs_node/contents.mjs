// @ts-check
// A folder's list of its own files with their sizes, in contents.json: what is damaged or was cut short is found by it.
import {existsSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join, relative} from 'node:path';

const NAME = 'contents.json';

/** @typedef {Record<string, number>} Contents path in the folder → bytes */

/** Lists a complete folder. @param {string} folder @returns {Contents} */
export function writeContents(folder) {
  const files = readdirSync(folder, {recursive: true, withFileTypes: true}).filter(entry => entry.isFile());
  const contents = Object.fromEntries(files.map(({parentPath, path, name}) => {
    const file = join(parentPath ?? path, name); // `path` until Node 20.12
    return [relative(folder, file), statSync(file).size];
  }));
  writeFileSync(join(folder, NAME), JSON.stringify(contents));
  return contents;
}

/** @param {string} folder @returns {Contents | undefined} undefined: it has no list, or is not as its list says */
export function checkedContents(folder) {
  /** @type {Contents} */
  let contents;
  try {
    contents = JSON.parse(readFileSync(join(folder, NAME), 'utf8'));
  } catch {
    return undefined;
  }
  const isWhole = Object.entries(contents).every(([file, bytes]) => sizeOf(join(folder, file)) === bytes);
  return isWhole ? contents : undefined;
}

/** @param {string} file @returns {number | undefined} */
export function sizeOf(file) {
  return existsSync(file) ? statSync(file).size : undefined;
}
