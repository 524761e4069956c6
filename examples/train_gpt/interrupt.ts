const SECOND_PRESS_MS = 1000;

/** Whether somebody asked the process to end. */
export interface Interrupt {
  readonly requested: boolean;
  /** From now on everything is saved, and a signal ends the process at once. */
  nothingToSave(goodbye: string): void;
}

/**
 * Listens for Ctrl-C and SIGTERM. The first asks for an end after the current step; another, a second later or more,
 * ends at once with 130. (npm passes on the Ctrl-C that the terminal has already sent, so one press arrives twice.)
 */
export function listenForInterrupt(): Interrupt {
  let firstAt: number|undefined;
  let goodbye: string|undefined;
  const onSignal = () => {
    if (goodbye !== undefined) {
      console.log(`\n${goodbye}`);
      process.exit(0);
    }
    const now = performance.now();
    if (firstAt !== undefined && now - firstAt > SECOND_PRESS_MS) {
      process.exit(130);
    }
    firstAt ??= now;
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    get requested() {
      return firstAt !== undefined;
    },
    nothingToSave(message) {
      goodbye = message;
    },
  };
}
