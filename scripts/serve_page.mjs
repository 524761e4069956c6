import {readFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';

import {build} from 'esbuild';

/**
 * A page to serve: `script` (a URL) bundled as /page.js, the style sheets that it imports in front of /page.css, and
 * files by path.
 * @typedef {{script: URL, files: Record<string, [URL, string]>, define?: Record<string, string>}} Page
 */

async function bundle({script, define}) {
  const {outputFiles} = await build({
    entryPoints: [fileURLToPath(script)],
    bundle: true,
    write: false,
    outdir: fileURLToPath(new URL('.', script)),
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    define: {'process.env.NODE_ENV': '"production"', ...define},
    logLevel: 'warning',
  });
  const text = ending => outputFiles.find(({path}) => path.endsWith(ending))?.text ?? '';
  return {script: text('.js'), style: text('.css')};
}

/**
 * Serves a page; gives the server and its address.
 * @param {Page} page
 * @param {{port?: number, host?: string}} [options]
 */
export async function servePage(page, {port = 8080, host = 'localhost'} = {}) {
  const {script, style} = await bundle(page);
  const files = new Map([['/page.js', [script, 'text/javascript; charset=utf-8']]]);
  for (const [path, [url, type]] of Object.entries(page.files)) {
    const contents = await readFile(url, 'utf8');
    files.set(path, [path === '/page.css' ? `${style}\n${contents}` : contents, type]);
  }
  const server = createServer((request, response) => {
    const found = files.get(new URL(request.url ?? '/', 'http://page').pathname);
    response.writeHead(found ? 200 : 404, {'content-type': found?.[1] ?? 'text/plain', 'cache-control': 'no-store'});
    response.end(found?.[0] ?? 'not found');
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(undefined));
  });
  return {server, address: `http://${host}:${server.address().port}/`};
}

/**
 * Serves a page as the command line asks: --port N (default 8080), --host NAME (default localhost).
 * @param {Page} page
 */
export async function serveFromCommandLine(page) {
  let options;
  try {
    ({values: options} = parseArgs({options: {port: {type: 'string'}, host: {type: 'string'}}}));
    const port = Number(options.port ?? 8080);
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new Error(`expected a port from 0 to 65535 for --port, received ${options.port}`);
    }
    const {address} = await servePage(page, {port, host: options.host ?? 'localhost'});
    console.log(`The page is at ${address} (Ctrl-C ends)`);
  } catch (error) {
    console.error(error.code === 'EADDRINUSE' ? `the port ${options.port ?? 8080} is taken; choose one with --port` :
                                                error.message);
    process.exitCode = 2;
  }
}
