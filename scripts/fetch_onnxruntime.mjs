// node scripts/fetch_onnxruntime.mjs: onnxruntime-node into build/onnxruntime, where the benchmarks look for it. It is
// no dependency of the project: the package has 108 MB, for every platform at once, and only a benchmark needs it.
import {execFileSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

const VERSION = '1.30.0';
const FOLDER = fileURLToPath(new URL('../build/onnxruntime', import.meta.url));

/** Fetches it, unless it is there; gives the folder that has it in its node_modules. */
export function fetchOnnxruntime() {
  const root = join(FOLDER, 'node_modules/onnxruntime-node');
  const file = join(root, 'package.json');
  if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === VERSION) {
    return FOLDER;
  }
  rmSync(FOLDER, {recursive: true, force: true});
  mkdirSync(FOLDER, {recursive: true});
  writeFileSync(join(FOLDER, 'package.json'), '{"private": true}\n');
  // Its install script would download CUDA libraries.
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `onnxruntime-node@${VERSION}`],
      {cwd: FOLDER, stdio: 'inherit', shell: process.platform === 'win32'});
  for (const folder of ['bin/napi-v6', `bin/napi-v6/${process.platform}`]) {
    const kept = folder.endsWith(process.platform) ? process.arch : process.platform;
    for (const name of readdirSync(join(root, folder)).filter(entry => entry !== kept)) {
      rmSync(join(root, folder, name), {recursive: true});
    }
  }
  return FOLDER;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  console.log(fetchOnnxruntime());
}
