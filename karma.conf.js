// The specs of test/webgpu and test/browser in a headless Chromium whose WebGPU is SwiftShader, on the CPU.
//   npm test -- browser, or for a look around: npx karma start --no-single-run, then open the address it prints
import {mkdirSync, readdirSync, writeFileSync} from 'node:fs';

import {build} from 'esbuild';

import {findBrowser} from './scripts/system_packages.mjs';

const MINUTE = 60_000;

// tfjs registers `webgpu` by itself here. Take it once, loudly: specs ask for it by name and would not notice.
const SETUP = `
  import * as tf from '@tensorflow/tfjs';
  import '@tensorflow/tfjs-backend-webgpu';
  import './src/index.js';
  beforeAll(async () => {
    if (!await tf.setBackend('webgpu')) {
      throw new Error('this browser gives no WebGPU device; see the warning above');
    }
  });
`;

async function bundleSpecs(outfile) {
  const specs = ['test/webgpu', 'test/browser'].flatMap(folder => {
    try {
      return readdirSync(folder, {recursive: true}).filter(name => name.endsWith('.spec.ts')).map(
          name => `./${folder}/${name}`);
    } catch {
      return []; // no such folder
    }
  });
  const contents = SETUP + specs.map(path => `import '${path}';\n`).join('');
  await build({
    stdin: {contents, resolveDir: import.meta.dirname},
    outfile, bundle: true, format: 'iife', platform: 'browser', target: 'es2022', external: ['webgpu'],
    logLevel: 'error', define: {'process.env.TEST_FULL': JSON.stringify(process.env.TEST_FULL ?? '')},
  });
}

/** Counts for scripts/test.mjs. Focused specs (fit, fdescribe) switch others off, which karma would let pass. */
function countReporter() {
  const counts = {passed: 0, failed: 0, pending: 0, failures: []};
  return {
    adapters: [],
    onSpecComplete(browser, {success, disabled, pending, suite, description, log}) {
      if (disabled) {
        console.log(`switched off by a focused spec: ${[...suite, description].join(' ')}`);
      }
      counts[pending ? 'pending' : success && !disabled ? 'passed' : 'failed']++;
      counts.failures.push(...log.map(text => `${[...suite, description].join(' ')}: ${text}`));
    },
    onRunComplete(browsers, {exitCode}) {
      if (exitCode !== 0 && counts.failed === 0) {
        counts.failed = 1; // outside any spec: none found, an error while loading or in afterAll, a lost browser
      }
      mkdirSync('build', {recursive: true});
      writeFileSync('build/browser_counts.json', JSON.stringify(counts));
    },
  };
}

export default async function(config) {
  process.env.CHROME_BIN = findBrowser();
  const bundle = 'build/browser_specs.js';
  await bundleSpecs(bundle);
  config.set({
    files: [bundle],
    frameworks: ['jasmine'],
    plugins: ['karma-jasmine', 'karma-chrome-launcher', {'reporter:count': ['factory', countReporter]}],
    reporters: ['dots', 'count'],
    colors: Boolean(process.stdout.isTTY),
    browsers: ['HeadlessSwiftShader'],
    customLaunchers: {
      HeadlessSwiftShader: {
        base: 'ChromeHeadless',
        flags: [
          '--no-sandbox', // as root, in containers
          '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
          '--no-first-run',
          '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
          // SwiftShader takes ten times as long to compile a kernel that clears its workgroup memory.
          '--enable-dawn-features=disable_workgroup_init',
        ],
      },
    },
    client: {jasmine: {random: true, failSpecWithNoExpectations: true, timeoutInterval: 2 * MINUTE}},
    singleRun: true,
    autoWatch: false,
    captureTimeout: 2 * MINUTE,
    // SwiftShader, and the reference in the page, keep the browser busy for long.
    browserNoActivityTimeout: 6 * MINUTE,
    browserDisconnectTimeout: MINUTE,
    pingTimeout: 2 * MINUTE,
  });
}
