import {readFileSync} from 'node:fs';

import {serve} from '../../benchmarks/browser/serve.mjs';

import {expect, saysWhatIsMissing, state, textOf, WEBGPU_FLAGS, withPage} from './page_support.mjs';

const TINY = 'command=bench&lengths=64,32&sizes=16&tokens=64&width=32&heads=2&causal=false&variants=float32';
const TINY_DECODE = {keys: '64', heads: '4', keyHeads: '2', size: '16', copy: '1', variants: 'float32'};

const rowsOf = page => page.$$eval('#table tbody tr', rows => rows.map(
  row => [...row.cells].map(({textContent}) => textContent)));

/** The file behind the button, as JSON. */
async function download(page) {
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
  return {name: file.suggestedFilename(), contents: JSON.parse(readFileSync(await file.path(), 'utf8'))};
}

async function measures(page, errors) {
  expect('the device is named', /swiftshader/i.test(await textOf(page, 'device')), await textOf(page, 'device'));
  await page.fill('[name=lengths]', 'many');
  await page.click('#start');
  expect('what is no number is refused', /numbers/.test(await textOf(page, 'problem')), await textOf(page, 'problem'));
  await page.fill('[name=lengths]', '64,32');
  await page.click('#start');
  await state(page, 'running');
  await state(page, 'idle');
  const rows = await rowsOf(page);
  // Lengths 64 and 32 at 64 tokens, and one sequence of 32; that of 64 is the same shape.
  expect('the table has a line for each shape', rows.length === 3, rows);
  // Backward is forward and backward less forward: on a busy machine nothing may be left: —.
  const isBackward = column => [7, 8].includes(column);
  expect('with speeds and memory of both', rows.every(row => row.length === 11 && row.every(
      (text, column) => column < 5 || Number(text) >= 0 || isBackward(column) && text === '—')), rows);
  const drawn = await page.$$eval('#plots svg', plots => plots.map(plot => plot.textContent));
  expect('speed and memory are drawn', drawn.length === 2 && drawn.every(text => /flashAttention/.test(text)), drawn);
  const skipped = await textOf(page, 'skipped');
  expect('nothing is left out', skipped === '', skipped);
  const {name, contents} = await download(page);
  expect('the file is named by suite and device', /^attention-.*swiftshader.*\.json$/.test(name), name);
  expect('it says on what', /Chrome/.test(contents.environment.browser) && contents.environment.backend === 'webgpu' &&
    contents.environment.commit !== 'unknown', contents.environment);
  expect('it has forward, and forward and backward, of both kinds at each shape', contents.results.length === 12 &&
    contents.results.every(({medianMs, tflops, peakBytes}) => medianMs > 0 && tflops > 0 && peakBytes > 0),
  contents.results);
  await page.selectOption('#command', 'decode');
  expect('another suite starts empty', (await rowsOf(page)).length === 0, await rowsOf(page));
  for (const [option, value] of Object.entries(TINY_DECODE)) {
    await page.fill(`[name=${option}]`, value);
  }
  await page.click('#start');
  await state(page, 'running');
  await state(page, 'idle');
  const decode = await download(page);
  expect('keys over a cache are measured', decode.contents.results.map(({kind}) => kind).join() ===
    'copy,flash,standard' && decode.contents.results.every(row => row.gigabytesPerSecond > 0), decode.contents);
  await page.selectOption('#command', 'bench');
  expect('the earlier results are still there', (await rowsOf(page)).length === 3, await rowsOf(page));
  expect('nothing went wrong in the console', errors.length === 0, errors);
}

/** The page that measures. */
export async function testBenchPage() {
  const {server, address} = await serve({port: 0});
  try {
    await withPage(WEBGPU_FLAGS, `${address}?${TINY}`, measures);
    await withPage([], address, (page, errors) => saysWhatIsMissing(page, errors, 'bench'));
  } finally {
    server.close();
  }
}
