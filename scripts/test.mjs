// npm test: all parts, or only those named (npm test -- unit webgpu). npm run test:full takes the whole grid of cases
// where npm test takes a sample. Two parts run at a time where there are two CPUs (--serial: one after the other). A
// part that fails does not stop the rest. A part that cannot run here is SKIPPED, with the reason, unless
// REQUIRE_DEVICE (a list) names its device: then it fails. The last line is always "N passed, N failed".
import {availableParallelism} from 'node:os';
import {fileURLToPath} from 'node:url';

import {ensureSystemPackages} from './system_packages.mjs';
import {PARTS} from './test/parts.mjs';
import {runParts} from './test/run_parts.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

/** Of failures told again at the end: of each part, and of each failure. */
const [MOST_FAILURES, MOST_CHARACTERS] = [10, 400];

const isFull = process.argv.includes('--full');
const isSerial = process.argv.includes('--serial');
const names = process.argv.slice(2).filter(name => !name.startsWith('--'));
const required = (process.env.REQUIRE_DEVICE ?? '').split(/[\s,]+/).filter(Boolean);
const devices = [...new Set(Object.values(PARTS).flatMap(({device}) => device ?? []))];
for (const [what, asked, known] of [['part', names, Object.keys(PARTS)], ['device', required, devices]]) {
  const unknown = asked.filter(name => !known.includes(name));
  if (unknown.length > 0) {
    console.log(`There is no ${what} ${unknown.join(', ')}, only ${known.join(', ')}.\n0 passed, 1 failed`);
    process.exit(1);
  }
}

const selected = Object.entries(PARTS).filter(([name]) => names.length === 0 || names.includes(name));

/** Why a part is left out that only runs when it is asked for, by its name or its device. */
const notAsked = (name, {device, onRequest}) =>
  names.includes(name) || required.includes(device) ? undefined : onRequest;

ensureSystemPackages([...new Set(selected.flatMap(
    ([name, part]) => notAsked(name, part) ? [] : part.packages ?? []))]);
const results = await runParts(selected.map(([name, part]) => ({
  name, part, required: required.includes(part.device), reason: notAsked(name, part) ?? part.problem?.(),
})), {
  atOnce: isSerial || selected.length === 1 ? 1 : Math.min(2, availableParallelism()),
  timeout: (isFull ? 180 : 60) * 60_000,
  env: isFull ? {TEST_FULL: '1'} : {},
});

console.log('\npart        passed  failed    time');
for (const {name, seconds, passed, failed, pending, skipped} of results) {
  const notes = [pending && `${pending} pending`, skipped && `${failed ? '' : 'SKIPPED: '}${skipped}`].filter(Boolean);
  console.log([
    name.padEnd(10), `${passed}`.padStart(8), `${failed}`.padStart(8), `${seconds.toFixed(1)} s`.padStart(10), '  ',
    ...notes,
  ].join('').trimEnd());
}
// Once more, where whoever sees only the end of a long run sees them.
for (const {name, failures = []} of results.filter(({failed}) => failed > 0)) {
  console.log(`\nFAILED ${name}`);
  const lines = failures.map(text => `  ${text.replace(/\s+/g, ' ').slice(0, MOST_CHARACTERS)}`);
  lines.slice(0, MOST_FAILURES).forEach(line => console.log(line));
}
const sum = key => results.reduce((total, result) => total + result[key], 0);
console.log(`\n${sum('passed')} passed, ${sum('failed')} failed`);
process.exitCode = sum('failed') > 0 ? 1 : 0;
