// The parts of npm run build:native that need no compiler. test/package looks at what it makes.
import {mkdtempSync, rmSync, utimesSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {isUpToDate} from '../../scripts/build_native/compile.mjs';
import {
  compileFlags, compileSteps, EXPORTS, linkFlags, parseDepends, VERSION_SCRIPT,
} from '../../scripts/build_native/plan.mjs';
import type {Variant} from '../../scripts/build_native/plan.mjs';
import {addonNeeds, isNewer, weakSymbols} from '../support/binary.mjs';

const release: Variant =
    {name: 'release', compiler: ['g++', '-m64'], arch: 'x64', platform: 'linux', sanitizers: [], isPrebuilt: false};
const prebuilt: Variant = {...release, name: 'prebuilt', compiler: ['zig', 'c++'], isPrebuilt: true};
const address: Variant = {...release, name: 'address', sanitizers: ['address']};
const arm: Variant = {...release, arch: 'arm64'};

describe('build:native', () => {
  it('gives instructions beyond the baseline to the files of their name only', () => {
    const march = (variant: Variant, name: string) =>
        compileFlags(variant, `kernels/cpu/${name}`).filter(flag => flag.startsWith('-m'));
    expect(march(release, 'isa_avx512.cc')).toEqual(['-march=x86-64-v4', '-mprefer-vector-width=512']);
    expect(march(release, 'isa_avx2.cc')).toEqual(['-march=x86-64-v3']);
    for (const name of ['isa_portable.cc', 'attention.cc', 'dispatch.cc']) {
      expect(march(release, name)).toEqual([]);
    }
    expect(march(prebuilt, 'isa_avx512.cc')).toEqual(['-march=x86_64_v4', '-mprefer-vector-width=512']);
    expect(march(arm, 'isa_avx2.cc')).toEqual([]);
  });

  it('never asks for arithmetic that loses NaN', () => {
    for (const variant of [release, prebuilt, address, arm]) {
      const flags = compileFlags(variant, 'kernels/cpu/isa_avx2.cc');
      expect(flags.filter(flag => /fast-math|finite-math|unsafe-math/.test(flag))).toEqual([]);
    }
  });

  it('keeps the C++ library to itself, but for sanitizers', () => {
    expect(linkFlags(release, 'addon', 'exports.txt')).toContain('-static-libstdc++');
    expect(linkFlags(release, 'addon', 'exports.txt')).toContain('-Wl,--version-script=exports.txt');
    expect(linkFlags(address, 'addon', 'exports.txt')).not.toContain('-static-libstdc++');
    expect(linkFlags(address, 'program', 'exports.txt')).toEqual(['-pthread', '-fsanitize=address', '-ldl']);
    expect(VERSION_SCRIPT).toContain(`${EXPORTS[0]};`);
    expect(VERSION_SCRIPT).toContain('local: *;');
  });

  it('makes one step of each source, with a list of what it includes', () => {
    const [step] = compileSteps(release,
        {sources: ['kernels/addon/addon.cc'], includes: ['inc'], defines: ['A=1'], objects: 'build/o'});
    expect(step.object).toBe('build/o/kernels_addon_addon.o');
    expect(step.depends).toBe('build/o/kernels_addon_addon.d');
    expect(step.args[0]).toBe('-m64');
    expect(step.args.join(' ')).toContain(`-DA=1 -I inc -MMD -MF ${step.depends} -c ${step.source} -o ${step.object}`);
  });

  it('reads lists of dependencies', () => {
    expect(parseDepends('a/b.o: x.cc y.h \\\n with\\ blank.h \\\n  z.h\n'))
        .toEqual(['x.cc', 'y.h', 'with blank.h', 'z.h']);
    expect(parseDepends('a.o: C:/x.cc\n')).toEqual(['C:/x.cc']);
  });

  it('compiles again when a file, the command or the compiler changes, or the object is gone', () => {
    const folder = mkdtempSync(join(tmpdir(), 'build-native-'));
    try {
      const [object, header] = [join(folder, 'a.o'), join(folder, 'a.h')];
      const at = (path: string, ms: number) => utimesSync(path, ms / 1000, ms / 1000);
      [object, header].forEach(path => writeFileSync(path, ''));
      at(header, 1_000_000);
      expect(isUpToDate(object, ['g++'])).toBeFalse();
      writeFileSync(`${object}.json`, JSON.stringify({command: ['g++'], time: 2_000_000, inputs: [header]}));
      expect(isUpToDate(object, ['g++'])).toBeTrue();
      expect(isUpToDate(object, ['g++', '-O2'])).toBeFalse();
      at(header, 2_000_000); // while it was being compiled
      expect(isUpToDate(object, ['g++'])).toBeFalse();
      at(header, 1_000_000);
      rmSync(object);
      expect(isUpToDate(object, ['g++'])).toBeFalse();
      writeFileSync(object, '');
      rmSync(header);
      expect(isUpToDate(object, ['g++'])).toBeFalse();
    } finally {
      rmSync(folder, {recursive: true});
    }
  });

  it('is checked by what binutils say of it', () => {
    expect(weakSymbols([
      '0000000000000000 T one', '0000000000000010 W two<int>(a b)', '                 w three',
      '                 U four', '0000000000000020 V five', '0000000000000030 u six', '0000000000000040 t seven',
      '0000000000000050 r eight',
    ].join('\n'))).toEqual(['two<int>(a b)', 'five', 'six']);
    expect(isNewer('2.30', '2.4')).toBeTrue();
    expect(isNewer('2.28', '2.28')).toBeFalse();
    expect(isNewer('2.2.5', '2.28')).toBeFalse();
    expect(isNewer('2.28.1', '2.28')).toBeTrue();
    const symbols = `
Symbol table '.dynsym' contains 6 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND 
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND malloc@GLIBC_2.2.5 (2)
     2: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND exp@GLIBC_2.29 (3)
     3: 0000000000000000     0 NOTYPE  WEAK   DEFAULT  UND napi_throw
     4: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND _ZNSt6thread4joinEv@GLIBCXX_3.4.11 (4)
     5: 0000000000001180    12 FUNC    GLOBAL DEFAULT   12 entry@@V1`;
    const dynamic = ' 0x01 (NEEDED)  Shared library: [libc.so.6]\n 0x0e (SONAME)  name: [x]';
    expect(addonNeeds(symbols, dynamic)).toEqual({
      exports: ['entry'], versions: ['2.2.5', '2.29'], otherVersions: ['GLIBCXX_3.4.11'], libraries: ['libc.so.6'],
    });
  });
});
