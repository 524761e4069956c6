import {execFileSync} from 'node:child_process';
import {fileURLToPath} from 'node:url';

import {nativeAddon} from '../../src/backends/native/load.js';

const PROGRAM = fileURLToPath(new URL('../support/thread_counts.ts', import.meta.url));

describe('the threads of the addon', () => {
  it('are as many as asked for, and none is left when the last environment ends', () => {
    const output = execFileSync(
        process.execPath, ['--import', 'tsx', PROGRAM, nativeAddon().path!], {encoding: 'utf8', timeout: 50_000});
    const {working: [alone, ...more], left} = JSON.parse(output.trim().split('\n').at(-1)!) as
        {working: number[], left: number};
    // The call has four tasks. Threads of a call before wait for the next.
    expect(more.map(threads => threads - alone)).toEqual([2, 2, 3]);
    expect(left).toBeLessThanOrEqual(0); // Node may end some of its own
  }, 60_000);
});
