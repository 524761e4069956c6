// `npx tfjs-flash-attention setup-tfjs-node` in an empty project outside this checkout, with the packed package, and
// what its users do then: each file of consumer/ is one of them. TensorFlow itself stays in the command's cache folder,
// so that only the first run downloads it. Leaves its counts in build/tensorflow_counts.json.
import assert from 'node:assert/strict';
import {spawn, spawnSync} from 'node:child_process';
import {once} from 'node:events';
import {
  chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {basename, join} from 'node:path';

import {cacheFolder} from '../../scripts/setup_tfjs_node/download.mjs';
import {pipPackage} from '../../scripts/setup_tfjs_node/tensorflow.mjs';
import {check, locked, packInto, root, run as runAnywhere, writeCounts} from '../support/checks.mjs';

import {bundleSpecs} from './bundle_specs.mjs';

const project = mkdtempSync(join(tmpdir(), 'tfjs-flash-attention-'));
const command = join(project, 'node_modules/.bin/tfjs-flash-attention');
const tfjsNode = join(project, 'node_modules/@tensorflow/tfjs-node');
const addon = join(tfjsNode, 'lib/napi-v8/tfjs_binding.node');
const cached = join(cacheFolder(), pipPackage(process.arch, false).name);

const run = (name, args, options) => runAnywhere(name, args, {cwd: project, ...options});
const setup = (...args) => run(command, ['setup-tfjs-node', ...args]);
const consume = name => run(process.execPath, [name]);
/** The addon of this package, as this checkout has built it. */
const ownAddon = join(root, 'build/native/flash_attention.node');
const withAddon = (...args) =>
  run(process.execPath, args, {env: {...process.env, FLASH_ATTENTION_ADDON: ownAddon}});

/** Exit code and stderr of a call that should fail. */
function fails(args, env = {}) {
  const {status, stderr} =
      spawnSync(command, args, {cwd: project, encoding: 'utf8', env: {...process.env, ...env}});
  return {status, stderr};
}

const partials = folder => readdirSync(folder).filter(name => name.includes('.partial-'));

function install() {
  const {filename} = packInto(project);
  writeFileSync(join(project, 'package.json'), '{"private": true}\n');
  run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', `./${filename}`,
    ...['@tensorflow/tfjs', '@tensorflow/tfjs-core', '@tensorflow/tfjs-layers'].map(locked)]);
  cpSync(new URL('consumer/', import.meta.url), project, {recursive: true});
}

/** A folder for PATH that has node and whatever else is named, and so has no compiler. */
function pathWith(...names) {
  const folder = join(project, 'path');
  rmSync(folder, {recursive: true, force: true});
  mkdirSync(folder);
  symlinkSync(process.execPath, join(folder, 'node'));
  for (const name of names) {
    writeFileSync(join(folder, name), '#!/bin/sh\nexit 1\n');
    chmodSync(join(folder, name), 0o755);
  }
  return folder;
}

function setsUp() {
  const start = performance.now();
  // Whether or not this machine's Python has a TensorFlow.
  const output = run('npx', ['tfjs-flash-attention', 'setup-tfjs-node', '--download']);
  assert.match(output, /^Done: @tensorflow\/tfjs-node 4\.\d+\.\d+ with TensorFlow [\d.]+ of pip works/m);
  console.log(`        ${((performance.now() - start) / 1000).toFixed(0)} s`);
  const {dependencies} = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
  assert.ok(dependencies['@tensorflow/tfjs-node']);
  assert.deepEqual(partials(tfjsNode), []);
}

function isQuickTheSecondTime() {
  const start = performance.now();
  assert.match(setup(), /^All is there: @tensorflow\/tfjs-node/m);
  const seconds = (performance.now() - start) / 1000;
  assert.ok(seconds < 15, `it took ${seconds} s`);
}

function repairs() {
  // What a run leaves that was killed at once, in the cache and in the package; a library cut short, the addon gone.
  const leftovers = [`${cached}.partial-4194304-1`, join(tfjsNode, 'deps.partial-4194304-1')];
  for (const folder of leftovers) {
    mkdirSync(folder);
    writeFileSync(join(folder, 'half'), 'half');
  }
  const library = join(tfjsNode, 'deps/lib/libtensorflow_framework.so.2');
  rmSync(library); // it is the same file as in the cache
  writeFileSync(library, 'half');
  rmSync(addon);
  const output = setup();
  assert.match(output, /deps\/lib\/libtensorflow_framework\.so\.2 has 4 bytes/);
  assert.match(output, /tfjs_binding\.node is gone/);
  assert.match(output, /^Done: /m);
  assert.deepEqual(leftovers.filter(existsSync), []);
  consume('tfjs_node.cjs');
}

async function cleansUpWhenInterrupted() {
  rmSync(addon);
  const child = spawn(command, ['setup-tfjs-node'], {cwd: project, stdio: ['ignore', 'pipe', 'inherit']});
  let isCompiling = false;
  for await (const text of child.stdout) {
    if (!isCompiling && /binding\/tfjs_backend\.cc/.test(text)) {
      isCompiling = true;
      assert.equal(partials(tfjsNode).length, 1);
      child.kill('SIGTERM');
    }
  }
  const [status] = child.exitCode === null ? await once(child, 'exit') : [child.exitCode];
  assert.ok(isCompiling);
  assert.equal(status, 143);
  assert.deepEqual(partials(tfjsNode), []);
  assert.ok(!existsSync(addon));
  assert.match(setup(), /^Done: /m);
}

function usesAGivenTensorFlow() {
  assert.match(setup('--tensorflow', cached), /used where it is\n[^]*\nDone: /);
  assert.ok(!existsSync(join(tfjsNode, 'deps')));
  consume('tfjs_node.cjs');
  assert.match(setup('--tensorflow', cached), /^All is there/m);
  const {status, stderr} = fails(['setup-tfjs-node', '--tensorflow', project]);
  assert.equal(status, 1);
  assert.match(stderr, /there is no TensorFlow in /);
}

function saysWhatIsMissing() {
  rmSync(addon);
  const noCompiler = fails(['setup-tfjs-node', '--download'], {PATH: pathWith(), CXX: ''});
  assert.equal(noCompiler.status, 1);
  assert.match(noCompiler.stderr, /there is no C\+\+ compiler here\nInstall a C\+\+ compiler .*g\+\+/);
  const noPython = fails(['setup-tfjs-node', '--download'],
      {PATH: pathWith('python3', 'python'), CXX: '/bin/true', XDG_CACHE_HOME: join(project, 'cache')});
  assert.equal(noPython.status, 1);
  assert.match(noPython.stderr, /there is no Python 3 here\nInstall Python 3\.8 or newer with pip/);
  const badOption = fails(['setup-tfjs-node', '--cpu']);
  assert.equal(badOption.status, 2);
  assert.match(badOption.stderr, /^tfjs-flash-attention: setup-tfjs-node has no option --cpu.*\n$/);
}

/** One file of specs on the backend tensorflow, by the addon. */
function specs(file) {
  const lines = withAddon('--expose-gc', 'run_specs.cjs', join(root, 'node_modules/jasmine'), file).trim().split('\n');
  const {specs: count} = JSON.parse(lines.at(-1));
  for (const line of lines.filter(text => /covered on|→/.test(text))) {
    console.log(`        ${line.replace(/^.*(?=covered on)/, '')}`);
  }
  console.log(`        ${count} specs`);
}

/** What the addon does for tfjs-node. */
async function checkAddon() {
  if (!existsSync(ownAddon)) {
    await check('npm run build:native', () => runAnywhere('npm', ['run', 'build:native'], {cwd: root}));
  }
  await check('flashAttention gives on TensorFlow what it gives on cpu, by the addon',
      () => withAddon('attention.cjs'));
  for (const [task, title] of Object.entries({
    before: 'the addon works before there is a TensorFlow, and with it then',
    after: 'the addon loaded after TensorFlow',
    worker: 'a worker that ends, two at once, then the main thread',
    copies: 'two copies of the addon in one process',
  })) {
    await check(title, () => withAddon('addon_order.cjs', task));
  }
  await check('on a fake CUDA device TensorFlow\'s CPU gives the same, and its GPU gets kernels', async () => {
    const {FAKE_LIBCUDA, buildFake, buildFakeAddon} = await import('../cuda/build_programs.mjs');
    await buildFake('fake_libcuda', []);
    const fake = await buildFakeAddon(() => {});
    const env = {
      ...process.env, FLASH_ATTENTION_ADDON: join(root, fake), FLASH_ATTENTION_LIBCUDA: join(root, FAKE_LIBCUDA),
    };
    for (const task of ['computes', 'lost', 'full']) {
      run(process.execPath, ['addon_cuda.cjs', task], {env});
    }
  });
  await check('without CUDA its GPU gets none', () => withAddon('addon_cuda.cjs', 'none'));
  await check('errors come back as exceptions, and the process goes on', () => withAddon('addon_errors.cjs'));
  await check('without the addon the TypeScript kernel serves, with a warning', () => run(
      process.execPath, ['addon_missing.cjs'],
      {env: {...process.env, FLASH_ATTENTION_ADDON: join(project, 'nowhere.node')}}));
  await check('FLASH_ATTENTION_NATIVE=off', () => run(
      process.execPath, ['addon_missing.cjs'], {env: {...process.env, FLASH_ATTENTION_NATIVE: 'off'}}));
  for (const file of await bundleSpecs(project)) {
    await check(`specs on TensorFlow: ${basename(file, '.spec.cjs')}`, () => specs(file));
  }
}

try {
  await check('the package installs in an empty project', install);
  if (existsSync(command)) {
    await check('setup-tfjs-node sets tfjs-node up', setsUp);
  }
  if (existsSync(addon)) {
    await check('tfjs-node computes, trains, saves and loads',
        () => console.log(`        ${consume('tfjs_node.cjs').trim()}`));
    await check('flashAttention gives on TensorFlow what it gives on cpu, by the TypeScript kernel', () => run(
        process.execPath, ['attention.cjs'], {env: {...process.env, FLASH_ATTENTION_NATIVE: 'off'}}));
    await checkAddon();
    await check('a second run finds all there', isQuickTheSecondTime);
    await check('a run repairs what is half done or damaged', repairs);
    await check('an interrupted run cleans up', cleansUpWhenInterrupted);
    await check('it takes a TensorFlow that is given', usesAGivenTensorFlow);
    await check('it says what is missing, and what to do', saysWhatIsMissing);
  }
} finally {
  rmSync(project, {recursive: true, force: true});
}
writeCounts('tensorflow');
