// The pages in a real headless Chromium, on its SwiftShader: node test/browser/pages.mjs [demo] [bench]
// Leaves its counts in build/page_counts.json, as scripts/run_jasmine.mjs does. CHROME_BIN names another browser.
import {mkdirSync, writeFileSync} from 'node:fs';

import {testBenchPage} from './bench_page.mjs';
import {testDemoPage} from './demo_page.mjs';
import {counts, expect} from './page_support.mjs';

const TESTS = {demo: testDemoPage, bench: testBenchPage};

const asked = process.argv.slice(2);
for (const [name, test] of Object.entries(TESTS)) {
  if (asked.length === 0 || asked.includes(name)) {
    try {
      await test();
    } catch (error) {
      expect(`the test of ${name} runs to its end`, false, error.message);
    }
  }
}
mkdirSync('build', {recursive: true});
writeFileSync('build/page_counts.json', JSON.stringify(counts));
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
