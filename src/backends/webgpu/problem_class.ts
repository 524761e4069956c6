import type {Problem} from '../../op/problem.js';

const bucket = (n: number): number => Math.ceil(Math.log2(Math.max(1, n)));

/**
 * Problems of one class share what `tune` found: the same sizes of heads and options, lengths and numbers of heads up
 * to the next power of two, with gradients or without. Pure; test/unit/problem_class.spec.ts has the table.
 */
export function problemClass(p: Problem, forGradient = false): string {
  const options = [
    p.windowRight === 0 ? 'causal' : p.windowRight > 0 && 'right', p.windowLeft >= 0 && 'left', p.maskShape && 'mask',
    p.biasShape && 'bias', p.alibi !== 'none' && 'alibi', p.softcap > 0 && 'softcap', p.dropoutP > 0 && 'dropout',
    p.hasSequences && 'sequences', p.queryOffsets && 'end to end', p.cache && 'cache', p.pageSize > 0 && 'pages',
    p.splits && `${p.splits} splits`, forGradient && 'with gradients',
  ];
  return [
    p.computeType, `D${p.headSize}`, `Dv${p.valueSize}`, `heads 2^${bucket(p.batch * p.queryHeads)}`,
    `of ${p.queryHeads / p.keyHeads}`, `queries 2^${bucket(p.queryLength)}`, `keys 2^${bucket(p.keyLength)}`,
    ...options.filter(Boolean),
  ].join(' ');
}
