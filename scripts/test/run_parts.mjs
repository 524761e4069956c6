// Runs parts of the tests, several at a time: most of them keep one CPU busy. What a part prints comes in one piece
// when it is over; with one at a time, as it comes.
import {spawn} from 'node:child_process';
import {readFileSync, rmSync} from 'node:fs';

/**
 * @typedef {{passed: number, failed: number, pending?: number, skipped?: string, failures?: string[]}} Counts
 * @typedef {object} Part
 * @property {string} title
 * @property {boolean} [alone]
 * @property {string} [lock]
 * @property {string} [device]
 * @property {() => string | undefined} [problem]
 * @property {string[]} [packages] of the system
 * @property {string} [onRequest] why it does not run unless it is named, or its device required
 * @property {(steps: Steps) => Promise<Counts>} run
 */

/** Runs scripts in Node for one part, and holds what they print. */
class Steps {
  #timeout;
  #env;
  /** @type {Buffer[] | undefined} */
  #held;

  constructor({timeout, env, holdOutput}) {
    this.#timeout = timeout;
    this.#env = env;
    this.#held = holdOutput ? [] : undefined;
    this.check = this.check.bind(this);
    this.counted = this.counted.bind(this);
  }

  say(line) {
    if (this.#held) {
      this.#held.push(Buffer.from(`${line}\n`));
    } else {
      console.log(line);
    }
  }

  /** Prints what was held. */
  tell() {
    this.#held?.forEach(chunk => process.stdout.write(chunk));
  }

  /** Runs a script in Node, started by `command` where one is given; true when it exits with 0. */
  #node(args, {env = {}, command: [program, ...first] = [process.execPath]} = {}) {
    return new Promise(resolve => {
      const child = spawn(program, [...first, ...args], {
        stdio: ['ignore', ...Array(2).fill(this.#held ? 'pipe' : 'inherit')],
        env: {...process.env, ...this.#env, ...env},
      });
      const hang = setTimeout(() => child.kill(), this.#timeout); // a hang is a failure too
      [child.stdout, child.stderr].forEach(stream => stream?.on('data', chunk => this.#held?.push(chunk)));
      child.on('error', error => this.say(`${program}: ${error.message}`));
      child.on('close', (code, signal) => {
        clearTimeout(hang);
        if (signal) {
          this.say(`ended by ${signal}`);
        }
        resolve(code === 0);
      });
    });
  }

  /** One check, passed or failed. */
  async check(args) {
    const ok = await this.#node(args);
    return {passed: Number(ok), failed: Number(!ok)};
  }

  /** Runs what leaves its counts in build/<name>_counts.json. A bad exit is a failure, whatever the counts say. */
  async counted(name, args, options) {
    const file = `build/${name}_counts.json`;
    rmSync(file, {force: true});
    const ok = await this.#node(args, options);
    let counts = {passed: 0, failed: 0};
    try {
      counts = JSON.parse(readFileSync(file, 'utf8'));
    } catch {
      this.say('ended before it could count');
    }
    return {...counts, failed: Math.max(counts.failed, ok && counts.passed > 0 ? 0 : 1)};
  }
}

/** @returns the part's counts, or why it did not run */
async function runPart({part: {device, run}, reason, required}, steps) {
  if (!reason) {
    return run(steps);
  }
  steps.say(required ? `REQUIRE_DEVICE asks for ${device}, but there is ${reason}` : `SKIPPED: ${reason}`);
  return {passed: 0, failed: Number(required), skipped: reason};
}

/**
 * @param {Array<{name: string, part: Part, reason?: string, required: boolean}>} parts with why one cannot run
 * @param {{atOnce: number, timeout: number, env: NodeJS.ProcessEnv}} options `timeout` of a script, milliseconds
 * @returns {Promise<Array<Counts & {name: string, seconds: number}>>} in the order of `parts`
 */
export async function runParts(parts, {atOnce, timeout, env}) {
  const waiting = [...parts];
  const locks = new Set();
  const results = new Map();
  const running = new Set();

  const start = entry => {
    const {name, part} = entry;
    const holdOutput = atOnce > 1;
    const steps = new Steps({timeout, env, holdOutput});
    steps.say(`\n=== ${name}: ${part.title}`);
    if (holdOutput) {
      console.log(`... ${name}`);
    }
    locks.add(part.lock);
    const begin = performance.now();
    const done = runPart(entry, steps).then(result => {
      const seconds = (performance.now() - begin) / 1000;
      steps.say(`--- ${name}: ${seconds.toFixed(1)} s`);
      steps.tell();
      results.set(name, {name, seconds, ...result});
    }, error => {
      steps.tell();
      throw error;
    }).finally(() => {
      running.delete(done);
      locks.delete(part.lock);
    });
    running.add(done);
    return done;
  };

  while (waiting.length > 0 || running.size > 0) {
    const next = waiting.findIndex(({part}) => part.lock === undefined || !locks.has(part.lock));
    if (next >= 0 && running.size < atOnce) {
      const [entry] = waiting.splice(next, 1);
      const done = start(entry);
      if (entry.part.alone) {
        await done;
      }
    } else {
      await Promise.race(running);
    }
  }
  return parts.map(({name}) => results.get(name));
}
