// @ts-check
// Runs the compiler where something has changed since the last time: a source, a header that it includes, the command
// line, or the compiler itself.
import {mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {availableParallelism} from 'node:os';
import {dirname} from 'node:path';

import {REMEDIES, toolError} from '../setup_tfjs_node/errors.mjs';
import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {parseDepends} from './plan.mjs';

/** @typedef {import('./plan.mjs').Step} Step */

const OLD_COMPILER = 'The compiler must know C++17 and x86-64-v4: install GCC 11 or Clang 12 or newer, or name one ' +
    'in the environment variable CXX.';

/** Where it is remembered what an object was made of. */
const recordOf = (/** @type {string} */ object) => `${object}.json`;

/**
 * What is remembered of an output. `time`: when the work began, so that an edit meanwhile is not missed.
 * @typedef {{command: string[], time: number, inputs: string[]}} Record
 */

/** @param {string} output @param {string[]} command @param {string} path of its record */
export function isUpToDate(output, command, path = recordOf(output), mtime = modified) {
  /** @type {Record} */
  let record;
  try {
    record = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return false;
  }
  return mtime(output) !== undefined && JSON.stringify(record.command) === JSON.stringify(command) &&
    record.inputs.every(path => (mtime(path) ?? Infinity) < record.time);
}

/** @param {string} path @returns {number | undefined} */
function modified(path) {
  return statSync(path, {throwIfNoEntry: false})?.mtimeMs;
}

/** @param {string} title @param {string} output */
function failure(title, output) {
  const isOld = /(bad value|unknown (target )?CPU|unknown value).*x86[-_]64[-_]v[34]|error: unrecognized.*std=/.test(
      output);
  const isFull = /No space left/.test(output);
  const remedy = isOld ? OLD_COMPILER : isFull ? REMEDIES.disk : 'See the compiler\'s message above.';
  const first = output.split('\n').findIndex(line => /error/i.test(line));
  const lines = output.trimEnd().split('\n').slice(Math.max(0, first)).slice(0, 30).join('\n');
  const error = toolError(`${title} could not be made`, lines, {otherwise: remedy});
  error.remedy = remedy;
  error.output = lines;
  return error;
}

/**
 * Compiles what must be, several at a time. Warnings are shown.
 * @param {string} compiler
 * @param {string} identity its version, as it says it
 * @param {Step[]} steps
 * @param {{cwd: string, env?: NodeJS.ProcessEnv, log: (line: string) => void}} options
 * @returns {Promise<number>} how many were compiled
 */
export async function compileAll(compiler, identity, steps, {cwd, env, log}) {
  const stale = steps.filter(({object, args}) => !isUpToDate(object, [identity, compiler, ...args]));
  const waiting = [...stale];
  let done = 0;
  let isFailed = false;
  const worker = async () => {
    for (let step = waiting.shift(); step && !isFailed; step = waiting.shift()) {
      const {source, object, depends, args} = step;
      const time = Date.now();
      mkdirSync(dirname(object), {recursive: true});
      rmSync(recordOf(object), {force: true});
      const {ok, output} = await runTool(compiler, args, {cwd, env});
      if (!ok) {
        isFailed = true;
        throw failure(source, output);
      }
      const inputs = parseDepends(readFileSync(depends, 'utf8'));
      writeFileSync(recordOf(object), JSON.stringify({command: [identity, compiler, ...args], time, inputs}));
      log(`[${++done}/${stale.length}] ${source} (${((Date.now() - time) / 1000).toFixed(1)} s)`);
      if (output.trim() !== '') {
        log(output.trimEnd());
      }
    }
  };
  const outcomes = await Promise.allSettled(
      Array.from({length: Math.min(stale.length, availableParallelism())}, worker));
  const failed = outcomes.find(outcome => outcome.status === 'rejected');
  if (failed?.status === 'rejected') {
    throw failed.reason;
  }
  return stale.length;
}

/**
 * Links, and gives the output its name when it is complete: a process that has the old one loaded keeps it.
 * @param {string} compiler @param {string} identity @param {string[]} args without the output
 * @param {string[]} inputs @param {string} output
 * @param {{cwd: string, env?: NodeJS.ProcessEnv, record: string}} options record: the file to remember it in
 * @returns {Promise<boolean>} false: there was nothing to do
 */
export async function link(compiler, identity, args, inputs, output, {cwd, env, record}) {
  const command = [identity, compiler, ...args];
  if (isUpToDate(output, command, record)) {
    return false;
  }
  const time = Date.now();
  mkdirSync(dirname(output), {recursive: true});
  rmSync(record, {force: true});
  const partial = `${output}.partial`;
  const {ok, output: text} = await runTool(compiler, [...args, '-o', partial], {cwd, env});
  if (!ok) {
    rmSync(partial, {force: true});
    throw failure(output, text);
  }
  renameSync(partial, output);
  writeFileSync(record, JSON.stringify({command, time, inputs}));
  return true;
}
