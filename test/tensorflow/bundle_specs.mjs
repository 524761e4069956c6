// Specs as files of a project that has the packed package and tfjs-node: the entries of src become the package's.
import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {build} from 'esbuild';

const ENTRIES = {
  'src/index.js': 'tfjs-flash-attention',
  'src/node.js': 'tfjs-flash-attention/node',
  'src/layers/index.js': 'tfjs-flash-attention/layers',
};

const packageEntries = {
  name: 'package-entries',
  setup({onResolve}) {
    onResolve({filter: /src\/(index|node|layers\/index)\.js$/}, ({path}) => ({
      path: ENTRIES[/src\/.*$/.exec(path)[0]], external: true,
    }));
  },
};

/** @returns the files, one for each spec file, in `project`/specs. */
export async function bundleSpecs(project) {
  const folder = fileURLToPath(new URL('specs/', import.meta.url));
  const names = readdirSync(folder).filter(name => name.endsWith('.spec.ts'));
  const outdir = join(project, 'specs');
  await build({
    entryPoints: names.map(name => join(folder, name)), outdir, outExtension: {'.js': '.cjs'}, bundle: true,
    platform: 'node', format: 'cjs', target: 'node20', packages: 'external', plugins: [packageEntries],
    logLevel: 'error',
  });
  return names.map(name => join(outdir, name.replace(/\.ts$/, '.cjs')));
}
