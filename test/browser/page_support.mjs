// What the tests of pages share: a headless Chromium with WebGPU on its SwiftShader, and counts.
import {chromium} from 'playwright-core';

import {findBrowser} from '../../scripts/system_packages.mjs';

const COMMON_FLAGS = [
  '--no-sandbox', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--no-first-run',
];
export const WEBGPU_FLAGS = [
  '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-dawn-features=disable_workgroup_init',
];
// SwiftShader on a busy two-core machine compiles for minutes.
const TIMEOUT_MS = 8 * 60_000;

export const counts = {passed: 0, failed: 0, pending: 0, failures: []};

export function expect(what, ok, seen) {
  const line = `${what}${ok ? '' : ` (saw ${JSON.stringify(seen)})`}`;
  counts[ok ? 'passed' : 'failed']++;
  if (!ok) {
    counts.failures.push(line);
  }
  console.log(`${ok ? 'passed' : 'FAILED'}: ${line}`);
}

export async function withPage(flags, address, use) {
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

export const textOf = (page, id) => page.textContent(`#${id}`);
export const state = (page, name) => page.waitForSelector(`body[data-state=${name}]`);

/** The page of a browser without WebGPU says so and has nothing to click. */
export async function saysWhatIsMissing(page, errors, hidden) {
  await state(page, 'missing');
  const message = await textOf(page, 'missing');
  expect('without WebGPU the page says what is missing', /WebGPU/.test(message) && /missing/.test(message), message);
  expect(`and offers no ${hidden}`, await page.isHidden(`#${hidden}`), hidden);
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
