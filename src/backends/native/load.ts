import type {NativeBinding} from './binding.js';
import {DESCRIPTION_FORMAT} from './description.js';

/** Finds the addon and loads it, in Node. No import of Node's modules: `process` is all that it takes. */

/** Why there is no addon. */
export type NativeProblem = {readonly kind: 'off'|'elsewhere'|'missing', readonly message: string};

interface Loaded {
  readonly binding?: NativeBinding;
  readonly path?: string;
  readonly problem?: NativeProblem;
}

const isNode = (): boolean => typeof process === 'object' && typeof process.versions?.node === 'string';

/** This module's file, in ES modules as in CommonJS. */
function ownFile(): string {
  if (typeof __filename === 'string') {
    return __filename;
  }
  const path = decodeURIComponent(new URL(import.meta.url).pathname);
  return /^\/[A-Za-z]:/.test(path) ? path.slice(1) : path;
}

/** The package's folder, or the checkout's; undefined where a bundler has put this module into another file. */
function packageFolder(): string|undefined {
  return /^(.*)[/\\](?:dist[/\\](?:esm|cjs)|src)[/\\]backends[/\\]native[/\\]/.exec(ownFile())?.[1];
}

/** Files that may be the addon, the one to take first. */
export function candidates(env: NodeJS.ProcessEnv, folder: string|undefined): string[] {
  if (env.FLASH_ATTENTION_ADDON) {
    return [env.FLASH_ATTENTION_ADDON];
  }
  if (folder === undefined) {
    return [];
  }
  return [
    `${folder}/build/native/flash_attention.node`,
    `${folder}/prebuilds/${process.platform}-${process.arch}/flash_attention.node`,
  ];
}

/** One file's way in. @throws with the cause and what to do about it. */
function open(path: string): NativeBinding {
  const module = {exports: {} as NativeBinding};
  try {
    process.dlopen(module, path);
  } catch (error) {
    throw new Error(explain((error as Error).message.split('\n')[0]));
  }
  if (module.exports.format !== DESCRIPTION_FORMAT) {
    throw new Error('it is of another version of the package; build it again: npm run build:native');
  }
  return module.exports;
}

function explain(message: string): string {
  if (/No such file|no such file|image not found|cannot find the (file|module)/i.test(message)) {
    return 'there is no such file';
  }
  if (/GLIBC(XX)?_[\d.]+.* not found/.test(message)) {
    return `${message}; it needs glibc 2.28 or newer: update the system, or build it here (npm run build:native)`;
  }
  if (/wrong ELF class|invalid ELF header|incompatible architecture|Exec format/.test(message)) {
    return `${message}; it is for another machine: build it here (npm run build:native)`;
  }
  return message;
}

const REMEDY = 'Build it with npm run build:native in a checkout of tfjs-flash-attention (it needs a C++ compiler), ' +
    'or name a file in FLASH_ATTENTION_ADDON.';

/** Tries every file; never throws. */
export function tryToLoad(env: NodeJS.ProcessEnv, folder: string|undefined): Loaded {
  if (env.FLASH_ATTENTION_NATIVE === 'off') {
    const message = 'flashAttention: FLASH_ATTENTION_NATIVE=off leaves the native addon out; unset it';
    return {problem: {kind: 'off', message}};
  }
  const causes: string[] = [];
  for (const path of candidates(env, folder)) {
    try {
      const binding = open(path);
      applyThreads(binding, env.FLASH_ATTENTION_THREADS);
      return {binding, path};
    } catch (error) {
      causes.push(`  ${path}: ${(error as Error).message}`);
    }
  }
  if (causes.length === 0) {
    causes.push('  this module is not in its package (a bundler moved it), so there is no place to look in');
  }
  const message = [
    `flashAttention: the native addon does not load (${process.platform}-${process.arch}, Node ${process.version}):`,
    ...causes, REMEDY,
  ].join('\n');
  return {problem: {kind: 'missing', message}};
}

function applyThreads(binding: NativeBinding, threads: string|undefined) {
  if (threads === undefined || threads === '') {
    return;
  }
  if (!/^\d+$/.test(threads)) {
    throw new Error(`expected a number for FLASH_ATTENTION_THREADS, received '${threads}'`);
  }
  binding.setThreads(Number(threads));
}

let loaded: Loaded|undefined;

/** The addon, or why there is none. Loads it at the first call. */
export function nativeAddon(): Loaded {
  if (!loaded) {
    loaded = isNode() ? tryToLoad(process.env, packageFolder()) :
                        {problem: {kind: 'elsewhere', message: 'flashAttention: the native addon is for Node'}};
  }
  return loaded;
}
