import {fork} from 'node:child_process';
import type {ChildProcess} from 'node:child_process';

import type {Measurement} from './core/measurements.js';
import type {Environment, Row} from './core/results.js';
import type {FromWorker} from './messages.js';

/** A program that serves measurements. */
export interface Program {
  file: string;
  args: readonly string[];
  /** What runs it, where that is not Node: it finds the channel in NODE_CHANNEL_FD. */
  execPath?: string;
}

export interface Limits {
  /** For all measurements together; 0 is no limit. */
  seconds: number;
  /** For one measurement. */
  secondsEach: number;
}

/** What comes of it, as it comes. */
export interface Listener {
  environment(environment: Partial<Environment>): void;
  row(measurement: Measurement, row: Row): void;
  /** Not measured, or not to its end. With `failed` its rows are wrong. */
  skipped(measurement: Measurement, why: string, failed: boolean): void;
}

/** Dawn and a driver may take their time. */
const START_MS = 90_000;

/** Timers may ring a millisecond early. */
const TIMER_MS = 2;

/** One worker process. */
class Worker {
  private readonly child: ChildProcess;
  private receive?: (message: FromWorker) => void;
  private ended?: FromWorker;

  constructor({file, args, execPath}: Program) {
    this.child = fork(file, args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'], ...execPath !== undefined && {execPath, execArgv: []},
    });
    this.child.on('message', message => this.receive?.(message as FromWorker));
    const end = (why: string) => {
      this.ended ??= {type: 'failed', why};
      this.receive?.(this.ended);
    };
    this.child.on('exit', (code, signal) => end(`its process ended (${signal ?? `exit code ${code}`})`));
    this.child.on('error', error => end(error.message));
  }

  /** The message that ends what is going on, `late` where none comes in time. */
  private outcome(milliseconds: number, late: string, onRow?: (row: Row) => void): Promise<FromWorker> {
    return new Promise(resolve => {
      const finish = (message: FromWorker) => {
        clearTimeout(timer);
        this.receive = undefined;
        resolve(message);
      };
      const timer = setTimeout(() => finish({type: 'failed', why: late}), milliseconds);
      this.receive = message => message.type === 'row' ? onRow?.(message.row) : finish(message);
      if (this.ended) {
        finish(this.ended);
      }
    });
  }

  start(milliseconds: number): Promise<FromWorker> {
    return this.outcome(milliseconds, `its process did not start within ${(milliseconds / 1000).toFixed(0)} s`);
  }

  measure(
      measurement: Measurement, milliseconds: number, late: string, onRow: (row: Row) => void): Promise<FromWorker> {
    const outcome = this.outcome(milliseconds, late, onRow);
    this.child.send(measurement, () => undefined); // an error means that it has ended, which is told as such
    return outcome;
  }

  kill() {
    this.child.removeAllListeners();
    this.child.on('error', () => undefined);
    this.child.kill('SIGKILL');
  }
}

/**
 * Has measurements done by other processes, one after the other. A process that hangs, crashes or reports an error is
 * killed and started anew for the next measurement, so that a run ends in time whatever a driver does.
 * @param first is started before the others, which may be all that is measured: it names the device.
 * @throws when the first does not start.
 */
export async function supervise(
    measurements: readonly Measurement[], programOf: (m: Measurement) => Program, first: Program,
    {seconds, secondsEach}: Limits, listener: Listener): Promise<void> {
  const end = seconds > 0 ? performance.now() + 1000 * seconds : Infinity;
  const over = `the ${seconds} s given were over`;
  const isOver = () => performance.now() > end - TIMER_MS;
  const workers = new Map<string, Worker>();
  const broken = new Map<string, string>();
  const keyOf = ({file, args}: Program) => [file, ...args].join(' ');
  const workerOf = async (program: Program): Promise<Worker|string> => {
    const key = keyOf(program);
    const running = workers.get(key) ?? broken.get(key);
    if (running !== undefined) {
      return running;
    }
    const worker = new Worker(program);
    const message = await worker.start(Math.min(START_MS, end - performance.now()));
    if (message.type !== 'ready') {
      worker.kill();
      const why = message.type === 'failed' ? message.why : `it began with ${message.type}`;
      broken.set(key, why);
      return why;
    }
    workers.set(key, worker);
    listener.environment(message.environment);
    return worker;
  };
  const started = await workerOf(first);
  if (typeof started === 'string') {
    throw new Error(`nothing can be measured: ${started}`);
  }
  for (const measurement of measurements) {
    if (isOver()) {
      listener.skipped(measurement, over, false);
      continue;
    }
    const program = programOf(measurement);
    const worker = await workerOf(program);
    if (typeof worker === 'string') {
      // A process that had no time left to start is not broken.
      const isBroken = !isOver();
      listener.skipped(measurement, isBroken ? worker : over, isBroken);
      continue;
    }
    const left = end - performance.now();
    const isLast = left < 1000 * secondsEach;
    const late = isLast ? over : `it did not end within ${secondsEach} s`;
    const message = await worker.measure(
        measurement, Math.min(1000 * secondsEach, left), late, row => listener.row(measurement, row));
    if (message.type === 'skipped') {
      listener.skipped(measurement, message.why, false);
    } else if (message.type === 'failed') {
      worker.kill();
      workers.delete(keyOf(program));
      // What was told before the time was over is right.
      listener.skipped(measurement, message.why, message.why !== late);
    }
  }
  workers.forEach(worker => worker.kill());
}
