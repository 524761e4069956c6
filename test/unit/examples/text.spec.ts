import {readFileSync} from 'node:fs';

import {fixedBatches, randomBatch} from '../../../examples/gpt/batches.js';
import {Bigram} from '../../../examples/gpt/bigram.js';
import {Rng} from '../../../examples/gpt/rng.js';
import {MAX_SYMBOLS, normalise, smallestText, splitText, UNKNOWN, Vocabulary} from '../../../examples/gpt/text.js';

const PANGRAM = 'The quick brown fox jumps over the lazy dog.\n';

describe('Rng', () => {
  it('repeats itself for a seed, goes on from a state, and differs between seeds', () => {
    const draw = (rng: Rng, count: number) => Array.from({length: count}, () => rng.next());
    const whole = draw(new Rng(7), 20);
    const rng = new Rng(7);
    expect(draw(rng, 10)).toEqual(whole.slice(0, 10));
    expect(draw(new Rng(rng.state), 10)).toEqual(whole.slice(10));
    expect(draw(new Rng(8), 20)).not.toEqual(whole);
  });

  it('is uniform and normal to within sampling error', () => {
    const rng = new Rng(1);
    const count = 100_000;
    const uniform = Array.from({length: count}, () => rng.next());
    expect(Math.min(...uniform.slice(0, 1000))).toBeGreaterThanOrEqual(0);
    expect(uniform.every(x => x >= 0 && x < 1)).toBeTrue();
    expect(uniform.reduce((a, b) => a + b) / count).toBeCloseTo(0.5, 2);
    const normal = Array.from({length: count}, () => rng.normal());
    expect(normal.reduce((a, b) => a + b) / count).toBeCloseTo(0, 1);
    expect(normal.reduce((a, b) => a + b * b) / count).toBeCloseTo(1, 1);
  });
});

describe('Vocabulary', () => {
  it('holds each symbol once, in code-point order', () => {
    expect(Vocabulary.of('banana\n').symbols).toEqual(['\n', 'a', 'b', 'n']);
  });

  it('gives back what it encoded', () => {
    const text = 'Ahab — naïve, 🐋 and “quoted”\n';
    const vocabulary = Vocabulary.of(text);
    expect(vocabulary.decode(vocabulary.encode(text))).toBe(text);
    expect(vocabulary.encode('🐋').length).toBe(1);
  });

  it('leaves out what it does not know', () => {
    const vocabulary = Vocabulary.of('abc');
    expect(vocabulary.decode(vocabulary.encode('axbycz'))).toBe('abc');
  });

  it('keeps the most frequent of too many symbols and one that stands for the rest', () => {
    const rare = Array.from({length: 400}, (_, n) => String.fromCodePoint(0x4e00 + n)).join('');
    const vocabulary = Vocabulary.of('common '.repeat(10) + rare);
    expect(vocabulary.size).toBe(MAX_SYMBOLS);
    expect(vocabulary.symbols).toContain(UNKNOWN);
    expect('common '.split('').every(symbol => vocabulary.symbols.includes(symbol))).toBeTrue();
    expect(vocabulary.decode(vocabulary.encode(`c${String.fromCodePoint(0x4e00 + 399)}`))).toBe(`c${UNKNOWN}`);
  });

  it('sees one way to write a line end, an accent, and the start of a file', () => {
    expect(normalise('\uFEFFa\r\nb\rc e\u0301')).toBe('a\nb\nc é');
  });
});

describe('splitText', () => {
  it('keeps the last tenth apart', () => {
    const {train, validation, vocabulary} = splitText(PANGRAM.repeat(100));
    expect(train.length).toBe(4050);
    expect(validation.length).toBe(450);
    expect(vocabulary.decode([...train, ...validation])).toBe(PANGRAM.repeat(100));
    expect(validation.byteOffset).toBe(train.byteOffset + train.byteLength);
  });

  it('finds enough in the smallest text that is allowed', () => {
    for (const context of [2, 64, 1024]) {
      const {train, validation} = splitText('ab'.repeat(smallestText(context) / 2 + 1));
      expect(fixedBatches(validation, 1, 1, context).length).withContext(`context ${context}`).toBe(1);
      expect(randomBatch(train, new Rng(1), 1, context).inputs.length).toBe(context);
    }
  });
});

describe('randomBatch', () => {
  const ids = Int32Array.from({length: 100}, (_, n) => n);

  it('gives windows of the text and what follows each symbol', () => {
    const {inputs, targets, windows, context} = randomBatch(ids, new Rng(3), 50, 8);
    expect([windows, context, inputs.length, targets.length]).toEqual([50, 8, 400, 400]);
    inputs.forEach((id, n) => {
      expect(targets[n]).toBe(id + 1);
      expect(id).toBe(inputs[n - n % 8] + n % 8);
    });
  });

  it('repeats itself for a seed and reaches the first and the last window', () => {
    expect(randomBatch(ids, new Rng(3), 9, 8)).toEqual(randomBatch(ids, new Rng(3), 9, 8));
    expect(randomBatch(ids, new Rng(3), 9, 8)).not.toEqual(randomBatch(ids, new Rng(4), 9, 8));
    const {inputs, targets} = randomBatch(ids, new Rng(3), 2000, 8);
    expect(Math.min(...inputs)).toBe(0);
    expect(Math.max(...targets)).toBe(99);
  });
});

describe('fixedBatches', () => {
  const ids = Int32Array.from({length: 101}, (_, n) => n);

  it('covers a text once, in batches', () => {
    const batches = fixedBatches(ids, 1000, 4, 10);
    expect(batches.map(({windows}) => windows)).toEqual([4, 4, 2]);
    expect(batches.flatMap(({inputs}) => [...inputs])).toEqual([...ids.subarray(0, 100)]);
    expect(batches.flatMap(({targets}) => [...targets])).toEqual([...ids.subarray(1)]);
  });

  it('spreads fewer windows over the text', () => {
    const [{inputs, windows}] = fixedBatches(ids, 3, 4, 10);
    expect(windows).toBe(3);
    expect([inputs[0], inputs[10], inputs[20]]).toEqual([0, 30, 60]);
  });
});

describe('Bigram', () => {
  it('has the loss that counting by hand gives', () => {
    // a→b twice, b→a once; each of the 2×2 counts begins at 0.1.
    const bigram = new Bigram(Int32Array.of(0, 1, 0, 1), 2);
    const batch = {inputs: Int32Array.of(0, 1, 1), targets: Int32Array.of(1, 0, 1), windows: 1, context: 3};
    const expected = -(Math.log(2.1 / 2.2) + Math.log(1.1 / 1.2) + Math.log(0.1 / 1.2)) / 3;
    expect(bigram.loss([batch])).toBeCloseTo(expected, 12);
    expect(bigram.loss([batch, batch])).toBeCloseTo(expected, 12);
  });

  it('knows nothing of what it never saw', () => {
    const bigram = new Bigram(Int32Array.of(0), 5);
    expect(bigram.loss([{inputs: Int32Array.of(3), targets: Int32Array.of(4), windows: 1, context: 1}]))
        .toBeCloseTo(Math.log(5), 12);
  });
});

describe('the text that ships with the project', () => {
  const folder = new URL('../../../examples/data/', import.meta.url);
  const text = readFileSync(new URL('moby_dick.txt', folder), 'utf8');

  it('is at least 300 KB of plain text with few symbols', () => {
    expect(text.length).toBeGreaterThan(300_000);
    expect(text).toMatch(/^[\n -~]*$/);
    expect(normalise(text)).toBe(text);
    expect(Vocabulary.of(text).size).toBeLessThan(100);
  });

  it('has its source and licence beside it, and is the file that they speak of', async () => {
    const source = readFileSync(new URL('SOURCE.md', folder), 'utf8');
    const {sha256} = await import('../../../examples/train_gpt/checkpoint.js');
    expect(source).toContain('public domain');
    expect(source).toContain(sha256(text));
  });
});
