import {existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {fileStorage} from '../../src/backends/webgpu/node_storage.js';
import {
  formatWinners, parseWinners, rememberedWinners, rememberWinners, setWinnerStorage,
} from '../../src/backends/webgpu/winners.js';

describe('winners as text', () => {
  const adapters = {a: {one: 'simt', two: 'decode'}, b: {one: 'matrix'}} as const;
  const text = formatWinners(adapters);
  const changed = (change: object) => JSON.stringify({...JSON.parse(text) as object, ...change});

  it('are read as they were written', () => expect(parseWinners(text)).toEqual(adapters));

  it('name the version of the kernels', () => {
    expect((JSON.parse(text) as {kernels: string}).kernels).toMatch(/^\d+-[0-9a-f]{1,8}$/);
  });

  const table: Array<[what: string, text: string|null, found: ReturnType<typeof parseWinners>]> = [
    ['nothing', null, {}],
    ['an empty text', '', {}],
    ['a text that ends early', text.slice(0, -3), {}],
    ['another kind of data', '[1, 2]', {}],
    ['null', 'null', {}],
    ['no adapters', changed({adapters: null}), {}],
    ['no version', changed({kernels: undefined}), {}],
    ['another version of the kernels', changed({kernels: '1-0'}), {}],
    ['an adapter with no winners', changed({adapters: {a: 7, b: {one: 'simt'}}}), {a: {}, b: {one: 'simt'}}],
    ['a kind that there is not', changed({adapters: {a: {one: 'telepathy', two: 'simt'}}}), {a: {two: 'simt'}}],
    ['a kind that is no text', changed({adapters: {a: {one: ['simt']}}}), {a: {}}],
  ];
  for (const [what, broken, found] of table) {
    it(`are what can be understood: ${what}`, () => expect(parseWinners(broken)).toEqual(found));
  }
});

describe('the memory of winners', () => {
  let folder: string;
  let before: string|undefined;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'winners-'));
    before = process.env.FLASH_ATTENTION_CACHE;
    process.env.FLASH_ATTENTION_CACHE = join(folder, 'not', 'there', 'yet.json');
    setWinnerStorage(fileStorage);
  });

  afterEach(() => {
    setWinnerStorage(undefined);
    if (before === undefined) {
      delete process.env.FLASH_ATTENTION_CACHE;
    } else {
      process.env.FLASH_ATTENTION_CACHE = before;
    }
    rmSync(folder, {recursive: true});
  });

  it('is a file in Node, which keeps what was there for other adapters and problems', () => {
    const place = process.env.FLASH_ATTENTION_CACHE!;
    expect(rememberedWinners('a')).toBeUndefined();
    expect(rememberWinners('a', {one: 'simt', two: 'decode'})).toBe(place);
    expect(rememberWinners('b', {one: 'matrix'})).toBe(place);
    expect(rememberWinners('a', {two: 'subgroup', three: 'simt'})).toBe(place);
    expect(rememberedWinners('a')).toEqual({one: 'simt', two: 'subgroup', three: 'simt'});
    expect(rememberedWinners('b')).toEqual({one: 'matrix'});
    expect(readdirSync(join(folder, 'not', 'there'))).withContext('nothing temporary').toEqual(['yet.json']);
  });

  it('does without a file that is broken or cannot be written', () => {
    const place = process.env.FLASH_ATTENTION_CACHE!;
    rememberWinners('a', {one: 'simt'});
    writeFileSync(place, readFileSync(place, 'utf8').slice(0, -3));
    expect(rememberedWinners('a')).toBeUndefined();
    expect(rememberWinners('a', {two: 'simt'})).toBe(place);
    expect(rememberedWinners('a')).toEqual({two: 'simt'});
    process.env.FLASH_ATTENTION_CACHE = join(place, 'in a file');
    expect(rememberWinners('a', {one: 'simt'})).toBeUndefined();
    expect(rememberedWinners('a')).toBeUndefined();
  });

  it('lies in the user\'s cache', () => {
    delete process.env.FLASH_ATTENTION_CACHE;
    const {place} = fileStorage();
    expect(place.endsWith(join('tfjs-flash-attention', 'winners.json'))).toBe(true);
    expect(existsSync(join(folder, 'not'))).toBe(false);
  });

  it('is nowhere in Node without the Node entry, or where there is no place for it', () => {
    setWinnerStorage(undefined);
    expect(rememberWinners('a', {one: 'simt'})).toBeUndefined();
    setWinnerStorage(() => {
      throw new Error('no home');
    });
    expect(rememberWinners('a', {one: 'simt'})).toBeUndefined();
    expect(rememberedWinners('a')).toBeUndefined();
  });
});
