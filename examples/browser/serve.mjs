// npm run demo:browser: bundles the page and serves it.
// Options: --port N (default 8080), --host NAME (default localhost).
import {pathToFileURL} from 'node:url';

import {serveFromCommandLine, servePage} from '../../scripts/serve_page.mjs';

const file = relative => new URL(relative, import.meta.url);

const PAGE = {
  script: file('page.ts'),
  files: {
    '/': [file('index.html'), 'text/html; charset=utf-8'],
    '/page.css': [file('page.css'), 'text/css; charset=utf-8'],
    '/moby_dick.txt': [file('../data/moby_dick.txt'), 'text/plain; charset=utf-8'],
  },
};

/** Serves the page; gives the server and its address. */
export const serve = options => servePage(PAGE, options);

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await serveFromCommandLine(PAGE);
}
