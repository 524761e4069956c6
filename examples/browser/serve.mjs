// npm run demo:browser: bundles the page and serves it.
// Options: --port N (default 8080), --host NAME (default localhost).
import {readFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import {fileURLToPath, pathToFileURL} from 'node:url';
import {parseArgs} from 'node:util';

import {build} from 'esbuild';

const file = relative => fileURLToPath(new URL(relative, import.meta.url));

const STATIC = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/moby_dick.txt': ['../data/moby_dick.txt', 'text/plain; charset=utf-8'],
};

/** The page's script, and uPlot's style sheet in front of the page's own. */
async function bundle() {
  const {outputFiles} = await build({
    entryPoints: [file('page.ts')],
    bundle: true,
    write: false,
    outdir: file('.'),
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    define: {'process.env.NODE_ENV': '"production"'},
    logLevel: 'warning',
  });
  const text = ending => outputFiles.find(({path}) => path.endsWith(ending)).text;
  return {script: text('.js'), style: text('.css')};
}

/** Serves the page; gives the server and its address. */
export async function serve({port = 8080, host = 'localhost'} = {}) {
  const {script, style} = await bundle();
  const files = new Map([['/page.js', [script, 'text/javascript; charset=utf-8']]]);
  for (const [path, [name, type]] of Object.entries(STATIC)) {
    const contents = await readFile(file(name), 'utf8');
    files.set(path, [path === '/page.css' ? `${style}\n${contents}` : contents, type]);
  }
  const server = createServer((request, response) => {
    const found = files.get(new URL(request.url, 'http://page').pathname);
    response.writeHead(found ? 200 : 404, {'content-type': found?.[1] ?? 'text/plain', 'cache-control': 'no-store'});
    response.end(found?.[0] ?? 'not found');
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return {server, address: `http://${host}:${server.address().port}/`};
}

async function main() {
  let options;
  try {
    ({values: options} = parseArgs({options: {port: {type: 'string'}, host: {type: 'string'}}}));
    const port = Number(options.port ?? 8080);
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new Error(`expected a port from 0 to 65535 for --port, received ${options.port}`);
    }
    const {address} = await serve({port, host: options.host ?? 'localhost'});
    console.log(`The page is at ${address} (Ctrl-C ends)`);
  } catch (error) {
    console.error(error.code === 'EADDRINUSE' ? `the port ${options.port ?? 8080} is taken; choose one with --port` :
                                                error.message);
    process.exitCode = 2;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main();
}
