// @ts-check
// Room on the disk, asked for before the work, and files at a second place without a second copy.
import {copyFileSync, constants, existsSync, linkSync, mkdirSync, statfsSync, statSync} from 'node:fs';
import {dirname, join} from 'node:path';

import {REMEDIES, SetupError} from './errors.mjs';

/** The folder, or the nearest one above it that exists. @param {string} folder @returns {string} */
function existing(folder) {
  return existsSync(folder) ? folder : existing(dirname(folder));
}

const gigabytes = (/** @type {number} */ bytes) => `${(bytes / 1e9).toFixed(1)} GB`;

/** @throws {SetupError} when there is less room than `bytes` where the folder is or will be. */
export function requireSpace(/** @type {string} */ folder, /** @type {number} */ bytes, statfs = statfsSync) {
  const {bavail, bsize} = statfs(existing(folder));
  const free = bavail * bsize;
  if (free < bytes) {
    throw new SetupError(`no room in ${folder}: ${gigabytes(bytes)} are needed and ${gigabytes(free)} are free`,
        REMEDIES.disk);
  }
}

export const onSameDisk = (/** @type {string} */ a, /** @type {string} */ b) =>
    statSync(existing(a)).dev === statSync(existing(b)).dev;

/**
 * Puts files of one folder into another, as further names of the same files where the system allows that.
 * @param {string} from @param {string} to @param {string[]} files relative paths
 */
export function linkFiles(from, to, files) {
  for (const file of files) {
    const target = join(to, file);
    mkdirSync(dirname(target), {recursive: true});
    try {
      linkSync(join(from, file), target);
    } catch {
      copyFileSync(join(from, file), target, constants.COPYFILE_FICLONE); // another disk, or not allowed
    }
  }
}
