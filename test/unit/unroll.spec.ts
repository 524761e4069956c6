import {unrollLoops} from '../../src/backends/webgpu/unroll.js';

const squeeze = (code: string) => code.replace(/\s+/g, ' ').trim();

describe('loops written out', () => {
  it('have a block for each round, with numbers for the counter', () => {
    const code = 'const N = 2u;\nfor (var i = 0u; i < N; i++) { sum[i] += in[i + fi]; }';
    expect(squeeze(unrollLoops(code)))
        .toBe('const N = 2u; { sum[0u] += in[0u + fi]; } { sum[1u] += in[1u + fi]; }');
  });

  it('are written out within each other, each with its own counter', () => {
    const code = 'const A = 4u;\nconst B = 2u;\n' +
        'for (var j = 0u; j < A / B; j++) { for (var d = 0u; d < 2u; d++) { f(j, d); } }';
    expect(squeeze(unrollLoops(code)).match(/f\(\d+u, \d+u\)/g))
        .toEqual(['f(0u, 0u)', 'f(0u, 1u)', 'f(1u, 0u)', 'f(1u, 1u)']);
  });

  it('stay loops where they stop early, have an unknown bound, count otherwise, or have many rounds', () => {
    for (const code of [
      'for (var i = 0u; i < 2u; i++) { if (x) { break; } }', 'for (var i = 0u; i < n; i++) { f(i); }',
      'for (var i = 1u; i < 2u; i++) { f(i); }', 'for (var i = 0u; i < 65u; i++) { f(i); }',
      'const A = 3u;\nfor (var i = 0u; i < A / 2u; i++) { f(i); }',
    ]) {
      expect(unrollLoops(code)).toBe(code);
    }
  });

  it('are written out inside a loop that stays', () => {
    expect(squeeze(unrollLoops('while (going) { for (var i = 0u; i < 2u; i++) { f(i); } }')))
        .toBe('while (going) { { f(0u); } { f(1u); } }');
  });

  it('do not count braces in comments', () => {
    expect(squeeze(unrollLoops('for (var i = 0u; i < 1u; i++) { f(i); // }\n}'))).toBe('{ f(0u); }');
  });
});
