import {PLAN_KINDS} from './choose.js';
import type {PlanKind} from './choose.js';
import {WGSL} from './wgsl_sources.js';

/** What `tune` found to be fastest on an adapter, by class of problems (`problemClass`). */
export type Winners = Readonly<Record<string, PlanKind>>;

/** Where winners are kept from one run to the next. Reading and writing may fail; then they last as long as the run. */
export interface WinnerStorage {
  /** For people: where that is. */
  readonly place: string;
  read(): string|null;
  write(text: string): void;
}

const KEY = 'tfjs-flash-attention.winners';

function browserStorage(): WinnerStorage|undefined {
  const {localStorage} = globalThis as {localStorage?: Storage}; // throws in pages that are denied it
  return localStorage && {
    place: `localStorage['${KEY}']`,
    read: () => localStorage.getItem(KEY),
    write: text => localStorage.setItem(KEY, text),
  };
}

/** Node's own localStorage asks for a file on the command line. */
const isNode = (): boolean => typeof process !== 'undefined' && process.versions?.node !== undefined;

let findStorage: (() => WinnerStorage)|undefined;

/** Names the place for winners where there is a better one than a browser's localStorage, or a test wants its own. */
export function setWinnerStorage(find: (() => WinnerStorage)|undefined): void {
  findStorage = find;
}

const storageOf = (): WinnerStorage|undefined => findStorage ? findStorage() : isNode() ? undefined : browserStorage();

/** To be raised when what is stored, or what a kind of plan does beside its WGSL, changes. */
const VERSION = 1;

let fingerprint: string|undefined;

/** Changes with the kernels: winners of others do not count. FNV-1a of the shaders. */
function kernelsVersion(): string {
  if (fingerprint === undefined) {
    let hash = 0x811C9DC5;
    for (const text of Object.values(WGSL)) {
      for (let i = 0; i < text.length; i++) {
        hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
      }
    }
    fingerprint = `${VERSION}-${(hash >>> 0).toString(16)}`;
  }
  return fingerprint;
}

type ByAdapter = Readonly<Record<string, Winners>>;

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

function known(winners: unknown): Winners {
  const entries = Object.entries(isObject(winners) ? winners : {});
  return Object.fromEntries(entries.filter(([, kind]) => PLAN_KINDS.includes(kind as PlanKind))) as Winners;
}

/** What is stored, as far as it is of these kernels and can be understood. Pure. */
export function parseWinners(text: string|null): ByAdapter {
  let stored: unknown;
  try {
    stored = JSON.parse(text ?? 'null');
  } catch {
    return {};
  }
  if (!isObject(stored) || stored.kernels !== kernelsVersion() || !isObject(stored.adapters)) {
    return {};
  }
  return Object.fromEntries(Object.entries(stored.adapters).map(([adapter, winners]) => [adapter, known(winners)]));
}

/** The text that is stored. Pure. */
export const formatWinners = (adapters: ByAdapter): string => JSON.stringify({kernels: kernelsVersion(), adapters});

/** The winners that are remembered for an adapter, if there are any. Does not throw. */
export function rememberedWinners(adapter: string): Winners|undefined {
  try {
    const winners = parseWinners(storageOf()?.read() ?? null)[adapter];
    return winners && Object.keys(winners).length > 0 ? winners : undefined;
  } catch {
    return undefined;
  }
}

/** Adds to what is remembered for an adapter. Gives the place, or nothing where it could not be written. */
export function rememberWinners(adapter: string, winners: Winners): string|undefined {
  try {
    const storage = storageOf();
    let before: string|null = null;
    try {
      before = storage?.read() ?? null;
    } catch {
      // A file that is not there yet.
    }
    const adapters = parseWinners(before);
    storage?.write(formatWinners({...adapters, [adapter]: {...adapters[adapter], ...winners}}));
    return storage?.place;
  } catch {
    return undefined;
  }
}
