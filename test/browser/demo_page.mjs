import {serve} from '../../examples/browser/serve.mjs';

import {expect, saysWhatIsMissing, state, textOf, WEBGPU_FLAGS, withPage} from './page_support.mjs';

const TINY = 'context=32&layers=1&heads=2&width=32&batch=2&steps=24&learningRate=0.01&seed=1';

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

/** The page that trains. */
export async function testDemoPage() {
  const {server, address} = await serve({port: 0});
  try {
    await withPage(WEBGPU_FLAGS, `${address}?${TINY}`, trains);
    await withPage([], address, (page, errors) => saysWhatIsMissing(page, errors, 'trainer'));
  } finally {
    server.close();
  }
}
