// @ts-check
// What the user sees: numbered steps, details below them, and percentages that overwrite themselves on a terminal.

/** @typedef {{write(text: string): unknown, isTTY?: boolean}} Output */

export class Report {
  /** @param {number} steps @param {Output} output */
  constructor(steps, output = process.stdout) {
    this.steps = steps;
    this.output = output;
    this.step = 0;
    this.percent = -1;
  }

  /** @param {string} text */
  line(text) {
    this.output.write(`${text}\n`);
  }

  /** @param {string} title */
  start(title) {
    this.line(`[${++this.step}/${this.steps}] ${title}`);
  }

  /** @param {string} text */
  detail(text) {
    this.line(`      ${text}`);
  }

  /** Progress of something long; `share` from 0 to 1. Elsewhere than on a terminal only each quarter is a line. */
  progress(/** @type {string} */ what, /** @type {number} */ share) {
    const percent = Math.floor(100 * share);
    const shown = this.output.isTTY ? percent : percent - percent % 25;
    if (shown === this.percent) {
      return;
    }
    this.percent = share >= 1 ? -1 : shown;
    if (this.output.isTTY) {
      this.output.write(`\r      ${what} ${percent}%${share >= 1 ? '\n' : ''}`);
    } else if (shown > 0) {
      this.detail(`${what} ${shown}%`);
    }
  }
}

/** 853308936 → '853 MB' */
export const megabytes = (/** @type {number} */ bytes) => `${Math.round(bytes / 1e6)} MB`;
