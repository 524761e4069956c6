// Packs the package, installs it into an empty project outside this checkout, and uses it there as its users do: each
// file of consumer/ is one of them. Leaves its counts in build/package_counts.json.
import {spawnSync} from 'node:child_process';
import {cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join, posix} from 'node:path';
import {createContext, runInContext} from 'node:vm';

import {build} from 'esbuild';

import {PREBUILT} from '../../scripts/build_native/build.mjs';
import {swiftShaderEnv, vulkanProblem} from '../../scripts/system_packages.mjs';
import {check, locked, packInto, root, run as runAnywhere, skip, writeCounts} from '../support/checks.mjs';
import {checkDoctor} from './doctor_checks.mjs';
import {checkPrebuilt} from './prebuilt_checks.mjs';

const project = mkdtempSync(join(tmpdir(), 'tfjs-flash-attention-'));
const PEERS = [
  '@tensorflow/tfjs', '@tensorflow/tfjs-core', '@tensorflow/tfjs-layers', '@tensorflow/tfjs-backend-webgpu', 'webgpu',
];
const TFJS_TYPES = 'node_modules/@tensorflow/';

const run = (command, args, options) => runAnywhere(command, args, {cwd: project, ...options});

function expectEmpty(what, list) {
  if (list.length > 0) {
    throw new Error(`${what}:\n  ${list.join('\n  ')}`);
  }
}

/** All file names in a package.json's `exports`. */
const targets = node => typeof node === 'string' ? [node] : Object.values(node).flatMap(targets);

let tarball;

async function checkTarball() {
  const {filename, size, unpackedSize, files} = packInto(project);
  tarball = filename;
  console.log(`        ${filename}: ${files.length} files, ${Math.round(size / 1000)} kB packed, ` +
      `${Math.round(unpackedSize / 1000)} kB unpacked`);
  const paths = files.map(({path}) => path);
  const expected = new RegExp('^(package\\.json|README\\.md|LICENSE|dist/cjs/package\\.json|' +
      'dist/(esm|cjs)/[\\w/]+\\.(js|d\\.ts)|bin/tfjs-flash-attention\\.mjs|' +
      'scripts/(setup_tfjs_node|doctor)/\\w+\\.(mjs|cjs|py)|docs/\\w+\\.md|' +
      'prebuilds/linux-x64/flash_attention\\.node)$');
  expectEmpty('files that should not be in the package', paths.filter(path => !expected.test(path)));
  const {exports, main, module, types, bin} = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const {scripts} = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  expectEmpty('scripts that an installation would run',
      ['preinstall', 'install', 'postinstall'].filter(name => name in scripts));
  const wanted = ['README.md', 'LICENSE', PREBUILT, ...targets({exports, main, module, types, bin})]
      .map(posix.normalize);
  expectEmpty('files that the package lacks', wanted.filter(path => !paths.includes(path)));
}

function install() {
  writeFileSync(join(project, 'package.json'), '{"private": true}\n');
  run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', `./${tarball}`,
    ...PEERS.map(locked)]);
  cpSync(new URL('consumer/', import.meta.url), project, {recursive: true});
  for (const name of ['types_esm.mts', 'types_cjs.cts']) {
    cpSync(join(project, 'types.ts'), join(project, name));
  }
}

/** Strict, and with the package's declarations checked too. tfjs' own do not pass that: their errors are left out. */
function compile(options, files) {
  const compilerOptions = {
    ...options, strict: true, noEmit: true, skipLibCheck: false, types: [], target: 'ES2022', lib: ['ES2022', 'DOM'],
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({compilerOptions, files}));
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const {status, stdout, stderr} =
      spawnSync(process.execPath, [tsc, '-p', project], {cwd: project, encoding: 'utf8'});
  const lines = status === 0 ? [] : (stdout + stderr).split('\n');
  expectEmpty('type errors', lines.filter(line => /^\S/.test(line) && !line.startsWith(TFJS_TYPES)));
}

async function bundle() {
  const {outputFiles, metafile} = await build({
    entryPoints: [join(project, 'browser.js')], bundle: true, format: 'iife', platform: 'browser', write: false,
    metafile: true, logLevel: 'silent', absWorkingDir: project,
  });
  // esbuild refuses Node's built-ins for browsers, but for those that a package's "browser" field switches off.
  const ours = Object.entries(metafile.inputs).filter(([path]) => path.includes('tfjs-flash-attention/'));
  expectEmpty('imports of built-ins', ours.flatMap(([, {imports}]) => imports).filter(
      ({path, external}) => external || path.startsWith('(disabled)')).map(({path}) => path));
  expectEmpty('what only Node needs', Object.keys(metafile.inputs).filter(
      path => /node_modules[/\\](webgpu|@webgpu)[/\\]|webgpu[/\\]node_device|native[/\\](?!absent)/.test(path)));
  // What tfjs wants to see of a browser. A fresh context has nothing of Node.
  const page = {console, performance, setTimeout, TextEncoder, TextDecoder, document: {}, addEventListener() {}};
  page.window = page.self = page;
  runInContext(outputFiles[0].text, createContext(page));
  await page.result;
}

async function checkGit() {
  const name = 'no file in git names a path of somebody\'s machine or a registry';
  // Spelt so that this file does not find itself.
  const {host} = new URL(run('npm', ['config', 'get', 'registry'], {cwd: root}).trim());
  const patterns = ['(^|[^A-Za-z0-9_.])/(work|root|home)/', 'registry[.](npmjs|yarnpkg)', host.replaceAll('.', '[.]')];
  const {status, stdout, stderr, error} =
      spawnSync('git', ['grep', '-nIE', patterns.join('|')], {cwd: root, encoding: 'utf8'});
  if (status === 0 || status === 1) {
    await check(name, () => expectEmpty('found', stdout.split('\n').filter(Boolean).map(line => line.slice(0, 200))));
  } else {
    skip(name, error?.message ?? stderr.trim()); // no git, or not a checkout
  }
}

try {
  await check('package-lock.json names no registry', () => {
    const lock = readFileSync(join(root, 'package-lock.json'), 'utf8');
    expectEmpty('addresses', lock.match(/"resolved": "http[^"]*"/g) ?? []);
  });
  await checkGit();
  await check('the tarball holds what it should and nothing else', checkTarball);
  if (tarball) {
    await check('it installs with its peers', install);
  }
  if (existsSync(join(project, 'types.ts'))) {
    for (const file of ['main.mjs', 'main.cjs']) {
      await check(`${file} in Node`, () => run(process.execPath, [file]));
    }
    for (const file of ['node_entry.mjs', 'node_entry.cjs']) {
      const problem = vulkanProblem();
      if (problem && !/\bwebgpu\b/.test(process.env.REQUIRE_DEVICE)) {
        skip(`${file} on WebGPU`, problem);
      } else {
        await check(`${file} on WebGPU`,
            () => run(process.execPath, [file], {env: {...process.env, ...swiftShaderEnv()}}));
      }
    }
    await checkPrebuilt(project);
    await checkDoctor(project);
    await check('TypeScript, NodeNext, ES modules and CommonJS',
        () => compile({module: 'NodeNext'}, ['types_esm.mts', 'types_cjs.cts']));
    await check('TypeScript, Bundler', () => compile({module: 'ESNext', moduleResolution: 'Bundler'}, ['types.ts']));
    await check('TypeScript, node10', () => compile({module: 'CommonJS', moduleResolution: 'node10'}, ['types.ts']));
    await check('a bundle for browsers builds, without Node\'s built-ins, and runs', bundle);
  }
} finally {
  rmSync(project, {recursive: true, force: true});
}
writeCounts('package');
