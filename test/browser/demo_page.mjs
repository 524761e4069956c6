// The browser page in a real headless Chromium, on its SwiftShader: node test/browser/demo_page.mjs
// Leaves its counts in build/page_counts.json, as scripts/run_jasmine.mjs does. CHROME_BIN names another browser.
import {mkdirSync, writeFileSync} from 'node:fs';

import {chromium} from 'playwright-core';

import {serve} from '../../examples/browser/serve.mjs';
import {findBrowser} from '../../scripts/system_packages.mjs';

const COMMON_FLAGS = [
  '--no-sandbox', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--no-first-run',
];
const WEBGPU_FLAGS = [
  '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-dawn-features=disable_workgroup_init',
];
// SwiftShader on a busy two-core machine compiles for minutes.
const TIMEOUT_MS = 8 * 60_000;
const TINY = 'context=32&layers=1&heads=2&width=32&batch=2&steps=24&learningRate=0.01&seed=1';

const counts = {passed: 0, failed: 0, pending: 0};

function expect(what, ok, seen) {
  counts[ok ? 'passed' : 'failed']++;
  console.log(`${ok ? 'passed' : 'FAILED'}: ${what}${ok ? '' : ` (saw ${JSON.stringify(seen)})`}`);
}

async function withPage(flags, address, use) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROME_BIN ?? findBrowserPath(), headless: true, args: [...COMMON_FLAGS, ...flags],
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(TIMEOUT_MS);
    const errors = [];
    page.on('pageerror', error => errors.push(error.message));
    page.on('console', message => message.type() === 'error' && errors.push(message.text()));
    await page.goto(address);
    await page.waitForSelector('body[data-state]');
    await use(page, errors);
  } finally {
    await browser.close();
  }
}

const textOf = (page, id) => page.textContent(`#${id}`);
const state = (page, name) => page.waitForSelector(`body[data-state=${name}]`);
const stepReached = (page, step) => page.waitForFunction(
  least => parseInt(document.getElementById('step').textContent, 10) >= least, step, {polling: 250});

/** How many pixels of the plot are drawn on. */
const inkOf = page => page.evaluate(() => {
  const canvas = document.querySelector('#plot canvas');
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let ink = 0;
  for (let n = 3; n < data.length; n += 4) {
    ink += Number(data[n] > 0);
  }
  return ink;
});

async function trains(page, errors) {
  expect('the device is named', /swiftshader/i.test(await textOf(page, 'device')), await textOf(page, 'device'));
  const emptyInk = await inkOf(page);
  await page.click('#start');
  await stepReached(page, 8);
  await page.selectOption('#attention', 'standard');
  await page.waitForFunction(() => /standard/.test(document.getElementById('step').textContent));
  const [switchedAt] = (await textOf(page, 'step')).split(' ');
  expect('switching to standard attention goes on where flash was', Number(switchedAt) > 8, switchedAt);
  await page.click('#stop');
  await state(page, 'idle');
  const paused = parseInt(await textOf(page, 'step'), 10);
  expect('pause ends between two steps', paused >= 9 && paused < 24, paused);
  await page.selectOption('#attention', 'flash');
  await page.click('#start');
  await stepReached(page, 24);
  await state(page, 'idle');
  const [loss, bigram] = [Number(await textOf(page, 'loss')), Number(await textOf(page, 'bigram'))];
  expect('the loss falls', loss > 1 && loss < 4, loss);
  expect('a bigram model stands beside it', bigram > 2 && bigram < 3, bigram);
  expect('the plot has every step', await page.getAttribute('#plot', 'data-points') === '24',
    await page.getAttribute('#plot', 'data-points'));
  expect('the plot is drawn on', await inkOf(page) > emptyInk, await inkOf(page));
  expect('there is a sample', (await textOf(page, 'sample')).length > 100, await textOf(page, 'sample'));
  for (const id of ['memory', 'peak-flash', 'peak-standard']) {
    const text = await textOf(page, id);
    expect(`${id} is shown`, /^\d+\.\d MiB$/.test(text) && parseFloat(text) > 0, text);
  }
  expect('speed is shown', /tokens\/s/.test(await textOf(page, 'speed')), await textOf(page, 'speed'));
  await page.click('#again');
  await page.fill('[name=heads]', '3');
  await page.click('#start');
  await page.waitForSelector('#problem:not([hidden])');
  expect('sizes that do not fit together are refused', /heads/.test(await textOf(page, 'problem')),
    await textOf(page, 'problem'));
  expect('nothing went wrong in the console', errors.length === 0, errors);
}

async function saysWhatIsMissing(page, errors) {
  await state(page, 'missing');
  const message = await textOf(page, 'missing');
  expect('without WebGPU the page says what is missing', /WebGPU/.test(message) && /missing/.test(message), message);
  expect('and offers no training', await page.isHidden('#trainer'), 'a trainer');
  expect('and stays calm in the console', errors.length === 0, errors);
}

function findBrowserPath() {
  const found = findBrowser();
  if (!found) {
    throw new Error('no browser: install chromium or Google Chrome, or set CHROME_BIN');
  }
  // playwright wants a path.
  return found.includes('/') ? found : `/usr/bin/${found}`;
}

const {server, address} = await serve({port: 0});
try {
  await withPage(WEBGPU_FLAGS, `${address}?${TINY}`, trains);
  await withPage([], address, saysWhatIsMissing);
} catch (error) {
  expect('the test runs to its end', false, error.message);
}
server.close();
mkdirSync('build', {recursive: true});
writeFileSync('build/page_counts.json', JSON.stringify(counts));
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed > 0 ? 1 : 0;
