// Mesa's lavapipe: Vulkan on the CPU with f16 and subgroup matrices (8×8×8, f16 → f32), which SwiftShader has not, so
// that the kernels on subgroup matrices can be tested without a GPU. Dawn refuses the Mesa of older systems, so this
// takes Debian 13's with all that it needs, C library included, from Debian's mirror: apt-get with a state of its own
// downloads them (10 MB of lists, 63 MB of packages) and dpkg-deb unpacks them (310 MB) into build/lavapipe, where they
// stay. Node is then run by that C library's dynamic linker. It needs neither root nor chroot, and installs nothing.
//   node scripts/lavapipe.mjs                    makes build/lavapipe where it is missing
//   node scripts/lavapipe.mjs <Node's arguments> runs Node on it:
//   node scripts/lavapipe.mjs --import tsx scripts/run_jasmine.mjs matrix --filter=…
// DEBIAN_MIRROR: where to fetch from. Default: the mirror of the machine's own Debian, else deb.debian.org.
import {spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

import {DEBIAN_KEYRING} from './system_packages.mjs';

const HOME = fileURLToPath(new URL('../build/lavapipe', import.meta.url));
const PARTIAL = `${HOME}.partial`; // in the making; renamed once it works
const SUITES = ['trixie', 'trixie-backports']; // a stable release: what its packages depend on is always there
const PACKAGES = ['mesa-vulkan-drivers', 'libvulkan1'];
const MADE_FROM = [...SUITES, ...PACKAGES].join(' ');
const STEP_TIMEOUT = 300_000;

/** Runs a program; returns what it printed, or throws with the first error that it printed (apt-get: after E:). */
function output(command, args, env = {}) {
  const {status, signal, error, stdout, stderr} = spawnSync(command, args, {
    encoding: 'utf8', timeout: STEP_TIMEOUT, maxBuffer: 1 << 28, env: {...process.env, LC_ALL: 'C', ...env},
  });
  if (status !== 0) {
    const lines = `${stderr ?? ''}`.trim().split('\n');
    const line = lines.find(text => text.startsWith('E: '))?.slice(3) ?? lines.at(-1);
    throw new Error(`${command}: ${error?.message ?? signal ?? line}`);
  }
  return stdout;
}

function debianMirror() {
  if (process.env.DEBIAN_MIRROR) {
    return process.env.DEBIAN_MIRROR;
  }
  const uris = output('apt-get', ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages']).split('\n');
  return uris.find(uri => /\/debian\/?$/.test(uri)) ?? 'http://deb.debian.org/debian';
}

/** Settings that keep apt-get to `folder`: nothing of the machine's packages, lists, hooks and priorities. */
function aptSettings(folder) {
  const architecture = output('dpkg', ['--print-architecture']).trim();
  return `
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "${architecture}";
APT::Architectures { "${architecture}"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::State "${folder}";
Dir::State::lists "${folder}/lists";
Dir::State::status "${folder}/status";
Dir::Cache "${folder}";
Dir::Cache::archives "${folder}/archives";
Dir::Etc::sourcelist "${folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
`;
}

/** Downloads the packages and all they depend on into `folder`; returns the paths of the archives. */
function download(folder) {
  const mirror = debianMirror();
  console.log(`lavapipe: downloading ${PACKAGES.join(', ')} of ${SUITES.at(-1)} from ${mirror} (75 MB)`);
  mkdirSync(join(folder, 'lists', 'partial'), {recursive: true});
  mkdirSync(join(folder, 'archives', 'partial'), {recursive: true});
  writeFileSync(join(folder, 'status'), ''); // no package is installed, so every one is downloaded
  writeFileSync(join(folder, 'sources.list'),
      SUITES.map(suite => `deb [signed-by=${DEBIAN_KEYRING}] ${mirror} ${suite} main\n`).join(''));
  const settings = join(folder, 'apt.conf');
  writeFileSync(settings, aptSettings(folder));
  const aptGet = args => output('apt-get', ['-q', '-c', settings, ...args]);
  try {
    // Without this a mirror that cannot be reached is only a warning of apt-get update.
    aptGet(['update', '-o', 'APT::Update::Error-Mode=any']);
    aptGet(['install', '-y', '--download-only', '-t', SUITES.at(-1), ...PACKAGES]);
  } catch (error) {
    throw new Error(
        `${error.message.replace(/\.+$/, '')}. Set DEBIAN_MIRROR to a mirror of Debian that can be reached`);
  }
  const archives = join(folder, 'archives');
  return readdirSync(archives).filter(name => name.endsWith('.deb')).map(name => join(archives, name));
}

/** Of the paths of files, the one whose name matches. */
function pick(paths, name) {
  const found = paths.filter(path => name.test(basename(path)));
  if (found.length !== 1) {
    throw new Error(`the packages hold ${found.length} files like ${name}`);
  }
  return found[0];
}

/** How Node is started on what `folder` holds: the program and its first arguments, and the environment. */
function launcher(folder) {
  const {linker, libraries} = JSON.parse(readFileSync(join(folder, 'lavapipe.json'), 'utf8'));
  const driver = join(folder, 'driver.json');
  return {
    // Inside, process.execPath is the linker: a spec that starts Node by it would start the linker alone.
    command: [join(folder, linker), '--library-path', join(folder, libraries), process.execPath],
    env: {
      VK_DRIVER_FILES: driver,
      VK_LOADER_LAYERS_DISABLE: '~all~', // the machine's own, made for another C library
      MESA_SHADER_CACHE_DIR: folder, // not in the user's home; LLVM takes seconds for a kernel
    },
  };
}

/** Notes in `folder` where the linker, the libraries and the driver are. */
function writeDescription(folder, mesa) {
  const paths = readdirSync(folder, {recursive: true});
  const driver = pick(paths, /^libvulkan_lvp\.so$/);
  const libraries = dirname(driver);
  const linker = pick(paths.filter(path => dirname(path) === libraries), /^ld-linux.*\.so\.\d+$/);
  // The Vulkan loader takes a path with a slash from the file's own folder, so that the whole can be moved.
  writeFileSync(join(folder, 'driver.json'), JSON.stringify(
      {file_format_version: '1.0.1', ICD: {api_version: '1.4.0', library_path: `./${driver}`}}));
  writeFileSync(join(folder, 'lavapipe.json'), JSON.stringify({madeFrom: MADE_FROM, mesa, linker, libraries}));
}

function make() {
  const start = performance.now();
  rmSync(PARTIAL, {recursive: true, force: true}); // of a run that was ended from outside
  try {
    const apt = join(PARTIAL, 'apt');
    const archives = download(apt);
    console.log(`lavapipe: unpacking ${archives.length} packages`);
    archives.forEach(archive => output('dpkg-deb', ['-x', archive, PARTIAL]));
    const mesa = archives.join(' ').match(/mesa-vulkan-drivers_([^_]+)/)[1];
    rmSync(apt, {recursive: true});
    writeDescription(PARTIAL, mesa);
    const {command: [program, ...first], env} = launcher(PARTIAL);
    output(program, [...first, '--version'], env);
    rmSync(HOME, {recursive: true, force: true});
    renameSync(PARTIAL, HOME);
    console.log(`lavapipe: Mesa ${mesa} after ${((performance.now() - start) / 1000).toFixed(0)} s`);
  } finally {
    rmSync(PARTIAL, {recursive: true, force: true});
  }
}

function isMade() {
  try {
    return JSON.parse(readFileSync(join(HOME, 'lavapipe.json'), 'utf8')).madeFrom === MADE_FROM;
  } catch {
    return false;
  }
}

/** Makes lavapipe where it is missing. Returns what stands in the way, with the remedy. Undefined: it is there. */
export function lavapipeProblem() {
  if (isMade()) {
    return undefined;
  }
  if (process.platform !== 'linux' || ['apt-get', 'dpkg-deb'].some(name => spawnSync(name, ['--version']).error)) {
    return 'no apt-get and dpkg-deb to fetch lavapipe with: run this part on Debian or Ubuntu, in a container too';
  }
  if (!existsSync(DEBIAN_KEYRING)) {
    return 'no keys to check Debian\'s packages of lavapipe with: install debian-archive-keyring';
  }
  try {
    make();
  } catch (error) {
    return `no lavapipe: ${error.message}`;
  }
  return undefined;
}

/** How Node is started on lavapipe, once `lavapipeProblem` has found none. */
export const lavapipeLauncher = () => launcher(HOME);

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const problem = lavapipeProblem();
  if (problem) {
    console.log(`There is ${problem}`);
    process.exit(1);
  }
  const args = process.argv.slice(2);
  if (args.length > 0) {
    const {command: [program, ...first], env} = lavapipeLauncher();
    const {status} = spawnSync(program, [...first, ...args], {stdio: 'inherit', env: {...process.env, ...env}});
    process.exitCode = status ?? 1;
  }
}
