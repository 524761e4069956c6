// The parts of npm run build:cuda that need no nvcc.
import {mkdtempSync, rmSync, utimesSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {areFresh} from '../../scripts/build_cuda/build.mjs';
import {architecturesFor} from '../../scripts/build_cuda/gpus.mjs';
import {compileSteps, imageOf, imagesSource, parseInstances, toolkitVersion} from '../../scripts/build_cuda/plan.mjs';
import {parseReport, problemsOf, tableOf} from '../../scripts/build_cuda/ptxas_report.mjs';

/** What ptxas 13.0 wrote of small kernels made to be good and bad; lines on compile time left out. */
const GOOD = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'good' for 'sm_80'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 256 bytes smem, 360 bytes cmem[0]
`;
const LOCAL = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'local' for 'sm_80'
ptxas info    : Function properties for local
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers, used 0 barriers, 256 bytes cumulative stack size, 364 bytes cmem[0]
`;
const SPILLS = `ptxas info    : Compiling entry function 'spills' for 'sm_80'
ptxas info    : Function properties for spills
    3976 bytes stack frame, 10624 bytes spill stores, 13708 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 3976 bytes cumulative stack size, 360 bytes cmem[0]
`;
const ARRIVE = 'ptxas info    : (C7519) warpgroup.arrive is injected in around line 45 by compiler to allow use of ' +
    'registers in GMMA in function \'serial\'\n';
const WAIT = 'ptxas info    : (C7517) warpgroup.wait is injected in around line 43 by compiler to allow use of ' +
    'registers defined by GMMA in function \'serial\'\n';
const SERIAL = 'ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due ' +
    'to insufficient register resources for the wgmma pipeline in the function \'serial\'\n';
const SETMAXNREG = 'ptxas info    : (C7508) Potential Performance Loss: \'setmaxnreg\' ignored; unable to determine ' +
    'register count at entry.\n';
const WGMMA = `ptxas info    : Compiling entry function 'serial' for 'sm_90a'
ptxas info    : Function properties for serial
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers
`;

describe('the check of ptxas\' report', () => {
  const problems = (text: string) => problemsOf(parseReport(text));

  it('reads registers, memory and the architecture, one kernel after the other', () => {
    const {kernels, losses} = parseReport(GOOD + SPILLS + WGMMA);
    expect(losses).toEqual([]);
    expect(kernels).toEqual([
      {kernel: 'good', architecture: 'sm_80', registers: 10, stack: 0, spillStores: 0, spillLoads: 0, shared: 256,
        local: 0},
      {kernel: 'spills', architecture: 'sm_80', registers: 32, stack: 3976, spillStores: 10624, spillLoads: 13708,
        shared: 0, local: 0},
      {kernel: 'serial', architecture: 'sm_90a', registers: 30, stack: 0, spillStores: 0, spillLoads: 0, shared: 0,
        local: 0},
    ]);
    expect(tableOf(kernels).split('\n').map(line => line.trim().split(/\s+/))).toEqual([
      ['kernel', 'arch', 'registers', 'spills', 'local', 'shared'], ['good', 'sm_80', '10', '0', '0', '256'],
      ['spills', 'sm_80', '32', '24332', '3976', '0'], ['serial', 'sm_90a', '30', '0', '0', '0'],
    ]);
  });

  it('passes what is good, and an arrive that was put in', () => {
    expect(problems(GOOD)).toEqual([]);
    expect(problems(ARRIVE + WGMMA)).toEqual([]);
    expect(parseReport(ARRIVE + WGMMA).notes.length).toBe(1);
  });

  it('fails on spills and local memory', () => {
    expect(problems(GOOD + SPILLS)).toEqual([
      'spills on sm_80 spills 10624 bytes and loads 13708', 'spills on sm_80 has 3976 bytes of local memory',
    ]);
    expect(problems(LOCAL)).toEqual(['local on sm_80 has 256 bytes of local memory']);
    expect(problems(GOOD.replace('256 bytes smem', '16 bytes lmem')))
        .toEqual(['good on sm_80 has 16 bytes of local memory']);
  });

  it('fails on what makes wgmma slow, and on every warning', () => {
    expect(problems(SERIAL + WGMMA)).toEqual([SERIAL.trim()]);
    expect(problems(SETMAXNREG + WGMMA)).toEqual([SETMAXNREG.trim()]);
    expect(problems(WAIT + WAIT + WGMMA)).toEqual([WAIT.trim()]);
    for (let code = 7508; code <= 7515; code++) {
      expect(problems(SERIAL.replace('C7511', `C${code}`).replace('Potential Performance Loss: ', '') + WGMMA).length)
          .withContext(`C${code}`).toBe(1);
    }
    expect(problems('ptxas warning : something new\n' + GOOD)).toEqual(['ptxas warning : something new']);
  });

  it('fails on a frame of a function that was not inlined', () => {
    const inner = '    32 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n';
    expect(problems(GOOD.replace('ptxas info    : Used',
        `ptxas info    : Function properties for helper\n${inner}ptxas info    : Used`)).length).toBe(2);
  });

  it('fails where nothing was compiled or reported', () => {
    expect(problems('')).toEqual(['no kernel was compiled']);
    expect(problems(GOOD.split('\n').slice(0, 3).join('\n'))).toEqual(['good on sm_80 is not reported on']);
  });
});

describe('build:cuda', () => {
  const LIST = `# a comment
a | forward.cu | all | DP=64 CAUSAL
b|hopper/f.cu|90a, ptx
`;

  it('reads the list of units', () => {
    expect(parseInstances(LIST, 'kernels/cuda/instances.txt')).toEqual([
      {name: 'a', source: 'kernels/cuda/forward.cu', targets: ['80', '86', '89', '90a', '100', '120', 'ptx'],
        defines: ['DP=64', 'CAUSAL']},
      {name: 'b', source: 'kernels/cuda/hopper/f.cu', targets: ['90a', 'ptx'], defines: []},
    ]);
    for (const bad of ['a', 'a | b.cu | 75', 'a | b.cpp | all', 'a b | b.cu | all', 'a|b.cu|all\na|c.cu|all']) {
      expect(() => parseInstances(bad, 'list.txt')).withContext(bad).toThrowError(/list\.txt, line \d/);
    }
  });

  it('compiles a unit for each architecture by the instructions that it alone has', () => {
    const [unit] = parseInstances(LIST, 'kernels/cuda/instances.txt');
    const steps = compileSteps(unit, 'build/cuda');
    expect(steps.map(({image}) => image.replace('build/cuda/', ''))).toEqual([
      'a.sm_80.fatbin', 'a.sm_86.fatbin', 'a.sm_89.fatbin', 'a.sm_90a.fatbin', 'a.sm_100.fatbin', 'a.sm_120.fatbin',
      'a.ptx_100.fatbin']);
    expect(steps[3].args).toContain('-gencode=arch=compute_90a,code=sm_90a');
    expect(steps[6].args).toContain('-gencode=arch=compute_100,code=compute_100');
    expect(steps[0].args.filter(arg => arg.startsWith('-D'))).toEqual(['-DDP=64', '-DCAUSAL']);
    expect(steps[0].args.filter(arg => /fast.math/.test(arg))).toEqual([]);
  });

  it('knows versions and kinds', () => {
    expect(toolkitVersion('Cuda compilation tools, release 13.0, V13.0.88')).toBe(13000);
    expect(toolkitVersion('release 12.9')).toBe(12090);
    expect(toolkitVersion('nothing')).toBeUndefined();
    expect(imageOf('90a')).toEqual({kind: 'exact', major: 9, minor: 0});
    expect(imageOf('86')).toEqual({kind: 'family', major: 8, minor: 6});
    expect(imageOf('120')).toEqual({kind: 'family', major: 12, minor: 0});
    expect(imageOf('ptx')).toEqual({kind: 'ptx', major: 10, minor: 0});
  });

  it('writes a table sorted by kernel, that changes with the images', () => {
    const table = {
      toolkit: 13000, units: ['u', 'v'], hash: '0123', images: [{unit: 1, target: '90a', path: 'build/x.fatbin'}],
      kernels: [{kernel: 'b', unit: 1}, {kernel: 'a', unit: 0}],
    };
    const source = imagesSource(table);
    expect(source).toContain('.incbin \\"build/x.fatbin\\"');
    expect(source).toContain('{1, ImageKind::exact, 9, 0, flash_attention_image_0,');
    expect(source).toContain('{"a", 0},\n      {"b", 1},');
    expect(source).toContain('table = {13000, 2, images, 1, kernels, 2}');
    expect(imagesSource({...table, hash: '4567'})).not.toBe(source);
    expect(() => imagesSource({...table, kernels: [{kernel: 'a', unit: 0}, {kernel: 'a', unit: 1}]}))
        .toThrowError(/kernel a is in more than one unit/);
    expect(imagesSource({toolkit: 0, units: [], images: [], kernels: [], hash: 'none'})).not.toContain('incbin');
  });
});

describe('the kernels that build:native takes', () => {
  it('are those for the machine\'s own GPUs', () => {
    expect(architecturesFor(['9.0', '9.0'])).toEqual(['90a']);
    expect(architecturesFor(['8.6', '8.0', '12.0'])).toEqual(['86', '80', '120']);
    expect(architecturesFor(['8.7', '10.3', '12.1'])).toEqual(['86', '100', '120']);
    expect(architecturesFor(['7.5', '9.1', '11.0', ''])).toEqual([]);
  });

  it('are left out where a source has changed since', () => {
    const folder = mkdtempSync(join(tmpdir(), 'flash-attention-'));
    const [table, image, source] = ['images.cc', 'unit.fatbin', 'unit.cu'].map(name => join(folder, name));
    const unit = {unit: 0, target: '80', path: image};
    writeFileSync(table, imagesSource({toolkit: 13000, units: ['unit'], images: [unit], kernels: [], hash: 'x'}));
    writeFileSync(image, 'image');
    writeFileSync(source, 'source');
    try {
      expect(areFresh(table)).toBeFalse(); // nobody knows what of
      writeFileSync(`${image}.json`, JSON.stringify({command: ['nvcc'], time: Date.now() + 1000, inputs: [source]}));
      expect(areFresh(table)).toBeTrue();
      utimesSync(source, new Date(), new Date(Date.now() + 5000));
      expect(areFresh(table)).toBeFalse();
      rmSync(source);
      expect(areFresh(table)).toBeFalse();
      writeFileSync(table, imagesSource({toolkit: 0, units: [], images: [], kernels: [], hash: 'none'}));
      expect(areFresh(table)).toBeFalse();
    } finally {
      rmSync(folder, {recursive: true});
    }
  });
});
