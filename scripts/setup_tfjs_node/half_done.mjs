// @ts-check
// Work in progress stands in <target>.partial-<process>, and gets its name only when it is complete. So what has its
// name is complete. What an ended process has left is found by its name and removed.
import {mkdirSync, readdirSync, readFileSync, renameSync, rmSync} from 'node:fs';
import {dirname, join} from 'node:path';

/** A process by its id and the time when it started, since ids come again. Undefined: there is none. */
export function processName(/** @type {number} */ pid) {
  try {
    // "pid (command) state …": the start time is field 22, and the command may hold blanks.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
    return `${pid}-${fields[19]}`;
  } catch {
    return undefined;
  }
}

const PARTIAL = /\.partial-((\d+)-\d+)$/;
/** @type {Set<string>} */
const mine = new Set();

process.on('exit', () => mine.forEach(path => rmSync(path, {recursive: true, force: true})));

/** Ends the process in the ordinary way on a signal, so that what is half done goes too. */
export function endOnSignals() {
  for (const [signal, status] of /** @type {const} */ ([['SIGHUP', 129], ['SIGINT', 130], ['SIGTERM', 143]])) {
    process.on(signal, () => process.exit(status));
  }
}

/** The path at which `target` is made. Nothing is there yet, but for the folder around it. */
export function partialPath(/** @type {string} */ target) {
  const path = `${target}.partial-${processName(process.pid)}`;
  mkdirSync(dirname(path), {recursive: true});
  rmSync(path, {recursive: true, force: true});
  mine.add(path);
  return path;
}

/** Gives what was made at `partialPath(target)` its name, in the place of what had it. */
export function finish(/** @type {string} */ target) {
  const path = `${target}.partial-${processName(process.pid)}`;
  rmSync(target, {recursive: true, force: true});
  renameSync(path, target);
  mine.delete(path);
}

/** Removes `partialPath(target)` where it did not come to anything. */
export function discard(/** @type {string} */ target) {
  const path = `${target}.partial-${processName(process.pid)}`;
  rmSync(path, {recursive: true, force: true});
  mine.delete(path);
}

/** Removes what ended processes have left in a folder. @returns {string[]} the names of what was removed */
export function removeLeftovers(/** @type {string} */ folder) {
  let names;
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  const left = names.filter(name => {
    const [, owner, pid] = PARTIAL.exec(name) ?? [];
    return owner !== undefined && processName(Number(pid)) !== owner;
  });
  left.forEach(name => rmSync(join(folder, name), {recursive: true, force: true}));
  return left;
}
