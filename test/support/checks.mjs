// Checks that are no Jasmine specs: programs run in a project of their own. Each says its outcome in one line, and the
// counts go to build/<name>_counts.json, for scripts/test.mjs.
import {spawnSync} from 'node:child_process';
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const counts = {passed: 0, failed: 0, pending: 0, failures: []};

export async function check(name, f) {
  try {
    await f();
    counts.passed++;
    console.log(`ok      ${name}`);
  } catch (error) {
    counts.failed++;
    counts.failures.push(`${name}: ${error.message}`);
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}

export function skip(name, reason) {
  counts.pending++;
  console.log(`SKIPPED ${name}: ${reason}`);
}

/** @returns what the command wrote to stdout. @throws with the end of what it wrote when it fails. */
export function run(command, args, options = {}) {
  const {status, stdout, stderr, error} =
      spawnSync(command, args, {encoding: 'utf8', shell: process.platform === 'win32', ...options});
  if (status !== 0) {
    throw error ?? new Error(`${command} ${args.join(' ')} ended with ${status}:\n${(stdout + stderr).slice(-3000)}`);
  }
  return stdout;
}

/** Builds the package and packs it into the folder. @returns what npm says of the tarball */
export function packInto(folder) {
  run(process.execPath, ['scripts/build.mjs'], {cwd: root});
  run(process.execPath, ['scripts/build_native.mjs', '--prebuilt'], {cwd: root});
  return JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {cwd: root}))[0];
}

/** `name@version` of the lock file: these are in npm's cache, so installing them works offline. */
export function locked(name) {
  return `${name}@${JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')).version}`;
}

/** To be called at the end. */
export function writeCounts(name) {
  mkdirSync(join(root, 'build'), {recursive: true});
  writeFileSync(join(root, `build/${name}_counts.json`), JSON.stringify(counts));
  process.exitCode = counts.failed > 0 ? 1 : 0;
}
