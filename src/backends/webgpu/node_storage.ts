import {mkdirSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {homedir} from 'node:os';
import {dirname, join} from 'node:path';

import type {WinnerStorage} from './winners.js';

/** The user's folder for caches, as the system has it. */
function cacheFolder(): string {
  const {XDG_CACHE_HOME, LOCALAPPDATA} = process.env;
  if (process.platform === 'win32') {
    return LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local');
  }
  if (process.platform === 'darwin') {
    return join(homedir(), 'Library', 'Caches');
  }
  return XDG_CACHE_HOME || join(homedir(), '.cache');
}

/** A file in the user's cache; FLASH_ATTENTION_CACHE names another one. */
export function fileStorage(): WinnerStorage {
  const place = process.env.FLASH_ATTENTION_CACHE || join(cacheFolder(), 'tfjs-flash-attention', 'winners.json');
  return {
    place,
    read: () => readFileSync(place, 'utf8'),
    write: text => {
      mkdirSync(dirname(place), {recursive: true});
      const temporary = `${place}.${process.pid}.tmp`;
      writeFileSync(temporary, text);
      renameSync(temporary, place); // whoever reads finds the old one whole or the new one
    },
  };
}
