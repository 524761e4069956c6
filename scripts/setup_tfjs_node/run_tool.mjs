// @ts-check
// Runs the tools (npm, pip, the compiler), so that what they wrote is at hand when they fail.
import {spawn} from 'node:child_process';

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set();
process.on('exit', () => running.forEach(child => child.kill()));

/**
 * @typedef {{ok: boolean, output: string, stdout: string}} Outcome
 * @typedef {object} Options
 * @property {string} [cwd]
 * @property {NodeJS.ProcessEnv} [env] besides that of this process
 * @property {boolean} [show] the user sees what the tool writes, as it comes
 * @property {(line: string) => void} [onLine] called for each line of stdout instead
 * @property {number} [timeout] milliseconds after which it is killed
 * @param {string} command
 * @param {string[]} args
 * @param {Options} [options]
 * @returns {Promise<Outcome>} output: stdout and stderr, and what else is known of the end. A command that is not found
 *     is an outcome too.
 */
export function runTool(command, args, {cwd, env = {}, show = false, onLine, timeout} = {}) {
  return new Promise(resolve => {
    // A tool that writes to the terminal itself draws its own progress bar there. Then only stderr can be kept.
    const inherits = show && process.stdout.isTTY;
    const child = spawn(command, args, {
      cwd, env: {...process.env, ...env}, stdio: ['ignore', inherits ? 'inherit' : 'pipe', 'pipe'],
      timeout, killSignal: timeout === undefined ? 'SIGTERM' : 'SIGKILL',
    });
    running.add(child);
    let output = '';
    let stdout = '';
    let line = '';
    child.stdout?.setEncoding('utf8').on('data', text => {
      stdout += text;
      output += text;
      if (onLine) {
        const lines = (line + text).split('\n');
        line = lines.pop() ?? '';
        lines.forEach(onLine);
      } else if (show) {
        process.stdout.write(text);
      }
    });
    child.stderr?.setEncoding('utf8').on('data', text => {
      output += text;
      if (show) {
        process.stderr.write(text);
      }
    });
    const end = (/** @type {boolean} */ ok, /** @type {string} */ note) => {
      running.delete(child);
      resolve({ok, stdout, output: output + note});
    };
    child.on('error', error => end(false, `${error.message}\n`));
    child.on('close', (status, signal) => end(status === 0, signal ? `ended by ${signal}\n` : ''));
  });
}
