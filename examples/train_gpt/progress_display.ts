import cliProgress from 'cli-progress';

import type {Progress} from '../gpt/training_loop.js';

const LINE_EVERY_MS = 10_000;
const LINES_AT_LEAST = 10;

/** 75 → '1:15'. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const tail = `${String(whole % 60).padStart(2, '0')}`;
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${tail}` : `${minutes}:${tail}`;
}

/** Shows how training goes: a bar on a terminal, now and then a line anywhere else. */
export interface ProgressDisplay {
  show(progress: Progress): void;
  /** Call once, before anything else is written. */
  end(): void;
}

const figures = ({loss, smoothLoss, tokensPerSecond, secondsLeft}: Progress, validation: number|undefined) => ({
  loss: (Number.isFinite(smoothLoss) ? smoothLoss : loss).toFixed(3),
  validation: validation === undefined ? '' : `, validation ${validation.toFixed(3)}`,
  speed: Math.round(tokensPerSecond).toLocaleString('en'),
  left: clock(secondsLeft),
});

function bar(firstStep: number, steps: number): ProgressDisplay {
  const view = new cliProgress.SingleBar({
    format: '{bar} step {value}/{total} | loss {loss}{validation} | {speed} tokens/s | {left} left',
    hideCursor: true,
    barsize: 24,
    gracefulExit: false, // it would take Ctrl-C for itself
  }, cliProgress.Presets.shades_classic);
  let validation: number|undefined;
  view.start(steps, firstStep, {loss: '…', validation: '', speed: '…', left: '…'});
  return {
    show(progress) {
      validation = progress.validationLoss ?? validation;
      view.update(progress.step, figures(progress, validation));
    },
    end: () => view.stop(),
  };
}

function lines(): ProgressDisplay {
  let lastLine = -Infinity;
  return {
    show(progress) {
      const {step, steps, validationLoss} = progress;
      const isRound = step % Math.max(1, Math.floor(steps / LINES_AT_LEAST)) === 0 || step === steps;
      if (validationLoss === undefined && !isRound && performance.now() - lastLine < LINE_EVERY_MS) {
        return;
      }
      lastLine = performance.now();
      const {loss, validation, speed, left} = figures(progress, validationLoss);
      console.log(`step ${step}/${steps} | loss ${loss}${validation} | ${speed} tokens/s | ${left} left`);
    },
    end: () => {},
  };
}

export function progressDisplay(firstStep: number, steps: number): ProgressDisplay {
  return process.stdout.isTTY ? bar(firstStep, steps) : lines();
}
