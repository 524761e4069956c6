import {execFileSync} from 'node:child_process';
import {fileURLToPath} from 'node:url';

const [LENGTH, HEADS, SIZE] = [16384, 1, 16];
const PROGRAM = fileURLToPath(new URL('../support/peak_memory.ts', import.meta.url));

describe('the memory of the addon', () => {
  it('grows with the sequence and not with its square, forward and backward', () => {
    const output = execFileSync(
        process.execPath, ['--import', 'tsx', PROGRAM, ...[LENGTH, HEADS, SIZE].map(String)], {encoding: 'utf8'});
    const {grown, finite, calls} = JSON.parse(output.trim().split('\n').at(-1)!) as
        {grown: number, finite: boolean, calls: {forward: number, backward: number}};
    expect(finite).toBe(true);
    expect([calls.forward, calls.backward]).toEqual([2, 2]);
    // One matrix of scores would be 1 GiB; a tensor is 1 MiB, and a call has a dozen of them and its parts of dQ.
    expect(grown).toBeLessThan(96 * 2 ** 20);
    expect(grown).toBeGreaterThan(0);
  }, 60_000);
});
