import {sequencesOf} from '../../src/backends/host/sequences.js';
import {TILE_KEYS, TILE_QUERIES} from '../../src/backends/host/tiles.js';
import {Visibility} from '../../src/backends/host/visibility.js';
import {makeProblem} from '../../src/op/problem.js';
import type {CallOptions} from '../../src/op/problem.js';

/** Tiles of keys that the TypeScript kernel visits over all tiles of queries. */
function visited(length: number, options: Partial<CallOptions>, keyCount = length): number {
  const shape = [1, length, 1, 8];
  const problem = makeProblem({q: {shape}, k: {shape}, v: {shape}}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
    dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true, ...options,
  });
  const [sequence] = sequencesOf({...problem, hasSequences: true}, Int32Array.of(0, length, 0, keyCount, 0));
  const visibility = new Visibility(problem, sequence, undefined, undefined);
  let tiles = 0;
  for (let i = 0; i < length; i += TILE_QUERIES) {
    const [begin, end] = visibility.tiles(i, Math.min(TILE_QUERIES, length - i));
    tiles += Math.max(0, Math.ceil((end - begin) / TILE_KEYS));
  }
  return tiles;
}

describe('the tiles that the TypeScript kernel visits', () => {
  const all = (length: number) => length / TILE_QUERIES * length / TILE_KEYS;

  it('are all without a window, and about half under causal masking', () => {
    expect(visited(2048, {})).toBe(all(2048));
    expect(visited(2048, {windowRight: 0}) / all(2048)).toBeLessThan(0.53);
  });

  it('grow with the length times the window', () => {
    const [short, long] = [1024, 4096].map(length => visited(length, {windowLeft: 100, windowRight: 20}));
    expect(long / short).toBeLessThan(4.3);
    // A tile of queries sees 100 + 32 + 20 keys: in four tiles at most.
    expect(long).toBeLessThanOrEqual(4 * 4096 / TILE_QUERIES);
  });

  it('end where the keys of a sequence end', () => {
    expect(visited(2048, {}, 100)).toBe(2048 / TILE_QUERIES * Math.ceil(100 / TILE_KEYS));
    expect(visited(2048, {}, 0)).toBe(0);
  });
});
