// Writes dist/esm (ES modules with .d.ts, by tsc) and dist/cjs (the same modules for require(), by esbuild). No source
// maps: the output is readable as it is, and the sources are not in the package.
import {spawnSync} from 'node:child_process';
import {mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {transformSync} from 'esbuild';

import {embedWgsl} from './embed_wgsl.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

embedWgsl();
rmSync('dist', {recursive: true, force: true});
const tsc = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'],
    {stdio: 'inherit'});
if (tsc.status !== 0) {
  process.exit(1);
}

function write(path, text) {
  mkdirSync(dirname(path), {recursive: true});
  writeFileSync(path, text);
}

// In this folder .js and .d.ts are CommonJS. So `require` gets types that say CommonJS, as TypeScript wants.
write('dist/cjs/package.json', '{"type": "commonjs"}\n');
for (const name of readdirSync('dist/esm', {recursive: true})) {
  const path = join('dist/esm', name);
  if (name.endsWith('.d.ts')) {
    write(join('dist/cjs', name), readFileSync(path, 'utf8'));
  } else if (name.endsWith('.js')) {
    // import() stays import(): the optional peer `webgpu` is an ES module, which require() in Node 20 refuses.
    const {code} = transformSync(
        readFileSync(path, 'utf8'), {sourcefile: name, format: 'cjs', platform: 'node', target: 'node20'});
    write(join('dist/cjs', name), code);
  }
}
