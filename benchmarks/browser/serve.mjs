// npm run bench:browser: bundles the page that measures a browser, and serves it.
// Options: --port N (default 8080), --host NAME (default localhost).
import {pathToFileURL} from 'node:url';

import {gitCommit} from '../../scripts/git_commit.mjs';
import {serveFromCommandLine, servePage} from '../../scripts/serve_page.mjs';

const file = relative => new URL(relative, import.meta.url);

const PAGE = {
  script: file('page.ts'),
  files: {
    '/': [file('index.html'), 'text/html; charset=utf-8'],
    '/page.css': [file('page.css'), 'text/css; charset=utf-8'],
    '/moby_dick.txt': [file('../../examples/data/moby_dick.txt'), 'text/plain; charset=utf-8'],
  },
  define: {'process.env.BENCHMARK_COMMIT': JSON.stringify(gitCommit())},
};

/** Serves the page; gives the server and its address. */
export const serve = options => servePage(PAGE, options);

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await serveFromCommandLine(PAGE);
}
