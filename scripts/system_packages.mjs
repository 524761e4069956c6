// What the tests need beyond npm: a Chromium or Chrome, which brings SwiftShader (Vulkan on the CPU), the Vulkan
// loader, through which Dawn in Node reaches SwiftShader or a GPU, the keys of Debian's packages for
// scripts/lavapipe.mjs, and a compiler and pip for tfjs-node's addon.
// Missing Debian packages are installed when we may (root, apt-get); otherwise the one command to run is printed, and
// what needs them is skipped.
//   node scripts/system_packages.mjs [chromium] [libvulkan1] [debian-archive-keyring] [g++] [python3-pip]
import {spawnSync} from 'node:child_process';
import {existsSync, readFileSync, realpathSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {pathToFileURL} from 'node:url';

const BROWSERS = [
  'chromium', 'google-chrome', 'google-chrome-stable', 'chromium-browser', '/snap/bin/chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

// Where they keep SwiftShader when what is started is a script elsewhere (Debian, Fedora, Google, Ubuntu's snap).
const BROWSER_FOLDERS = [
  '/usr/lib/chromium', '/usr/lib64/chromium-browser', '/opt/google/chrome',
  '/snap/chromium/current/usr/lib/chromium-browser',
];

/** The keys that Debian signs its packages with, as Debian's and Ubuntu's package installs them. */
export const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

function runs(command) {
  // Ubuntu has a /usr/bin/chromium-browser that only says that there is a snap. So ask for the version.
  const {status, stdout} = spawnSync(command, ['--version'], {encoding: 'utf8', timeout: 60_000});
  return status === 0 && /Chrom(e|ium)/.test(stdout);
}

/** The command that starts a Chromium or Chrome: CHROME_BIN where it is set, else what there is. Or undefined. */
export function findBrowser() {
  const {CHROME_BIN} = process.env;
  return (CHROME_BIN ? [CHROME_BIN] : BROWSERS).find(runs);
}

/** The driver file of the browser's SwiftShader, for VK_DRIVER_FILES. Or undefined. */
export function findSwiftShader() {
  const {CHROME_BIN} = process.env;
  const folders = CHROME_BIN && existsSync(CHROME_BIN) ? [dirname(realpathSync(CHROME_BIN))] : [];
  return [...folders, ...BROWSER_FOLDERS].map(folder => join(folder, 'vk_swiftshader_icd.json')).find(existsSync);
}

/** Whether the Vulkan loader can be loaded. Only Linux keeps it in a package of its own that may be missing. */
export function hasVulkanLoader() {
  if (process.platform !== 'linux') {
    return true;
  }
  try {
    process.dlopen({exports: {}}, 'libvulkan.so.1');
  } catch (error) {
    // It is no Node addon, which is said only once it has been found and loaded.
    return !/cannot open shared object file/i.test(error.message);
  }
  return true;
}

/** Environment that lets Dawn in Node run on the browser's SwiftShader, unless the caller has chosen a driver. */
export function swiftShaderEnv() {
  const driver = findSwiftShader();
  if (process.platform !== 'linux' || process.env.VK_DRIVER_FILES || !driver) {
    return {};
  }
  return {
    VK_DRIVER_FILES: driver,
    VK_ICD_FILENAMES: driver, // what loaders before 1.3.207 read
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(), // or SwiftShader complains
  };
}

/** What is missing for Dawn in Node under `swiftShaderEnv`. Undefined: nothing. */
export function vulkanProblem() {
  if (!hasVulkanLoader()) {
    return 'no Vulkan loader (libvulkan.so.1): install libvulkan1';
  }
  if (process.platform === 'linux' && !process.env.VK_DRIVER_FILES && !findSwiftShader()) {
    return 'no SwiftShader (vk_swiftshader_icd.json): install chromium or Google Chrome, or set VK_DRIVER_FILES';
  }
  return undefined;
}

const hasCompiler = () => spawnSync(process.env.CXX || 'g++', ['--version'], {shell: true}).status === 0;
const hasPip = () => spawnSync('python3', ['-m', 'pip', '--version']).status === 0;

/** What is missing for the native addon and its sanitizers. Undefined: nothing. */
export function nativeProblem() {
  if (process.platform !== 'linux') {
    return 'no Linux, which the tests of the native addon are for';
  }
  return hasCompiler() ? undefined : 'no C++ compiler: install g++, or set CXX';
}

/** What is missing for `setup-tfjs-node`. Undefined: nothing. */
export function tfjsNodeProblem() {
  if (process.platform !== 'linux') {
    return 'no Linux, which setup-tfjs-node is for';
  }
  if (!hasCompiler()) {
    return 'no C++ compiler: install g++, or set CXX';
  }
  return hasPip() ? undefined : 'no pip for python3: install python3-pip';
}

const IS_THERE = {
  'chromium': () => findBrowser() !== undefined,
  'libvulkan1': hasVulkanLoader,
  'debian-archive-keyring': () => existsSync(DEBIAN_KEYRING),
  'g++': hasCompiler,
  'python3-pip': hasPip,
};

/** Installs what is missing of these Debian packages, or says how. Never throws. Does nothing outside Linux. */
export function ensureSystemPackages(names = Object.keys(IS_THERE)) {
  if (process.platform !== 'linux') {
    return;
  }
  let missing = names.filter(name => !IS_THERE[name]());
  const isUbuntu = existsSync('/etc/os-release') && /^ID=ubuntu$/m.test(readFileSync('/etc/os-release', 'utf8'));
  if (isUbuntu && missing.includes('chromium')) {
    console.log('No Chromium or Chrome found. Ubuntu\'s package chromium is a snap, which this script leaves alone. ' +
        'Install Google Chrome (https://www.google.com/chrome), or run: sudo snap install chromium');
    missing = missing.filter(name => name !== 'chromium');
  }
  if (missing.length === 0) {
    return;
  }
  const install = ['install', '-y', '--no-install-recommends', ...missing];
  const hasApt = spawnSync('apt-get', ['--version']).status === 0;
  if (!hasApt) {
    console.log(`Not found: ${missing.join(', ')} (Debian's names). Install them with the system's package manager.`);
  } else if (process.getuid() !== 0) {
    console.log(`Not found: ${missing.join(', ')}. Run:\n  sudo apt-get ${install.join(' ')}`);
  } else {
    const options = {stdio: 'inherit', env: {...process.env, DEBIAN_FRONTEND: 'noninteractive'}};
    spawnSync('apt-get', ['update'], options);
    if (spawnSync('apt-get', install, options).status !== 0) {
      console.log(`Could not install ${missing.join(', ')}; see apt-get's message above.`);
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  ensureSystemPackages(process.argv.length > 2 ? process.argv.slice(2) : undefined);
}
