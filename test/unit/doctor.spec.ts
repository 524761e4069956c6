// What doctor makes of the facts of machines that are not this one. test/package runs it for real.
import {findings, render} from '../../scripts/doctor/findings.mjs';
import type {Facts, Finding} from '../../scripts/doctor/findings.mjs';
import {canLoad, readCpu, readCpuFeatures, readSmi} from '../../scripts/doctor/machine.mjs';
import {parseArguments, UsageError} from '../../scripts/setup_tfjs_node/arguments.mjs';

const V3 = 'fpu sse4_2 avx avx2 bmi1 bmi2 f16c fma movbe abm';
const V4 = `${V3} avx512f avx512bw avx512cd avx512dq avx512vl`;
const cpuinfo = (flags: string) => `processor\t: 0\nvendor_id\t: X\nflags\t\t: ${flags}\nbugs\t\t: avx512f\n`;

/** A machine with everything. */
const FULL: Facts = {
  package: {version: '1.2.3', dir: '/project/node_modules/tfjs-flash-attention'},
  node: {version: 'v22.1.0', platform: 'linux', arch: 'x64', glibc: '2.36'},
  cpu: {model: 'Some CPU', cores: 8, features: ['avx2', 'fma', 'avx512f'], instructionSet: 'avx512'},
  gpu: {
    devices: [{name: 'NVIDIA H100', driver: '570.1', memory: '81559 MiB'}], cards: 1, hasDriver: true, hasCuda: true,
  },
  addon: {
    path: '/project/addon.node', instructionSet: 'avx512', threads: 8, cuda: {
      driver: '13.0', kernels: '13.0', contextEvents: true,
      devices: [{device: 'cuda:0', name: 'NVIDIA H100', computeCapability: '9.0', code: 'sm_80, sm_90a'}],
    },
  },
  cpuBackend: {computes: true, kernel: 'native'},
  wasm: {version: '4.22.0', computes: true, kernel: 'native'},
  tensorflow: {
    name: '@tensorflow/tfjs-node-gpu', version: '4.22.0', dir: '/project/tfjs-node-gpu', tensorflow: '2.21.0',
    library: '/project/libtensorflow.so.2', isCuda: true, onGpu: true, computes: true, kernel: 'native',
  },
  webgpu: {
    version: '0.6.2', hasBackend: true, report: {
      adapter: 'nvidia hopper', hardware: true, features: ['shader-f16', 'subgroups', 'core-features'],
      matrixConfigurations: [{}], missing: [],
    },
  },
};

/** A machine with nothing. */
const BARE: Facts = {
  ...FULL,
  cpu: {model: 'Old CPU', cores: 1, features: [], instructionSet: 'portable'},
  gpu: {devices: [], cards: 0, hasDriver: false, hasCuda: false, problem: 'there is no nvidia-smi'},
  addon: {error: 'the native addon does not load\n  a: not there\n  b: wrong glibc'},
  cpuBackend: {computes: true, kernel: 'TypeScript'}, wasm: {}, tensorflow: {}, webgpu: {},
};

const all = (facts: Facts): Finding[] => findings(facts).flatMap(section => section.findings);
const of = (facts: Facts, title: string) => all(facts).filter(finding => finding.title === title);
const text = (facts: Facts) => render(findings(facts)).join('\n');

describe('doctor', () => {
  it('has --json and nothing else', () => {
    expect(parseArguments(['doctor'])).toEqual({command: 'doctor', json: false});
    expect(parseArguments(['doctor', '--json'])).toEqual({command: 'doctor', json: true});
    expect(parseArguments(['doctor', '--help'])).toEqual({command: 'help'});
    expect(() => parseArguments(['doctor', '--all'])).toThrowError(UsageError, /^doctor has no option --all, only/);
  });

  it('finds nothing to complain about where all is there', () => {
    expect(all(FULL).filter(({state}) => state !== 'ok')).toEqual([]);
    expect(of(FULL, 'cpu')[0].text).toBe('C++ kernels, avx512; CUDA kernels after setNativeDevice(\'cuda\')');
    expect(of(FULL, 'tensorflow')[0].text).toBe('CUDA kernels, as an operation of TensorFlow on its GPU');
    expect(of(FULL, 'CUDA')[0].text).toBe('cuda:0 is NVIDIA H100, 9.0; the addon\'s kernels for it: sm_80, sm_90a');
    expect(text(FULL)).toContain('ok CUDA          driver for CUDA 13.0, kernels made with CUDA 13.0\n');
    expect(text(FULL)).toContain('simt, subgroup, decode; with computeType float16 or bfloat16 matrix');
  });

  it('has a remedy for whatever is missing, and names every cause', () => {
    const missing = all(BARE).filter(({state}) => state === 'missing');
    expect(missing.map(({title}) => title))
        .toEqual(['Addon', 'tfjs-node', 'WebGPU', 'cpu', 'webgpu', 'tensorflow']);
    for (const {title, text: what, remedy} of missing) {
      expect(remedy ?? what).withContext(title).toMatch(/npx|npm install|wrong glibc|see /i);
    }
    expect(text(BARE)).toMatch(/-- Addon {9}the native addon does not load\n {19}→ a: not there\n {19}→ b: /);
    expect(of(BARE, 'GPU')[0].state).toBe('note');
    expect(of(BARE, 'Instructions')[0]).toEqual(
        {title: 'Instructions', state: 'note', text: 'the native kernels use portable code'});
  });

  it('tells a GPU without a driver, a driver without a GPU and a driver without CUDA apart', () => {
    const gpu = (change: Partial<Facts['gpu']>) => ({...FULL, gpu: {...FULL.gpu, devices: [], ...change}});
    const smi = {problem: 'there is no nvidia-smi'};
    expect(of(gpu({...smi, hasDriver: false}), 'GPU')[0]).toEqual(jasmine.objectContaining(
        {state: 'missing', text: '1 NVIDIA card on the bus, but no GPU that can be used: there is no nvidia-smi',
          remedy: 'Install NVIDIA\'s driver.'}));
    expect(of(gpu({...smi, cards: 0}), 'GPU')[0].remedy).toMatch(/container/);
    expect(of({...FULL, gpu: {...FULL.gpu, hasCuda: false}}, 'CUDA')[0].remedy).toMatch(/libcuda1/);
  });

  it('says why the addon has no CUDA kernels for a GPU, and what an old driver costs', () => {
    const on = (change: object) =>
        ({...FULL, addon: {...FULL.addon, cuda: {contextEvents: true, devices: [], ...change}}});
    const none = on({problem: 'this addon was built without CUDA kernels', driver: '13.0'});
    expect(of(none, 'CUDA')).toEqual([jasmine.objectContaining(
        {state: 'missing', text: 'this addon was built without CUDA kernels'})]);
    expect(of(none, 'CUDA')[0].remedy).toMatch(/build:cuda/);
    expect(of(none, 'cpu')[0].text).toBe('C++ kernels, avx512');
    expect(of(none, 'tensorflow')[0].text).toBe(
        'C++ kernels, avx512, as an operation of TensorFlow: from its GPU and back with a copy each way');
    const device = {device: 'cuda:0', name: 'Tesla T4', computeCapability: '7.5'};
    const old = on({kernels: '13.0', driver: '12.3', contextEvents: false, devices: [device], problem: 'for none'});
    expect(of(old, 'CUDA').map(({state}) => state)).toEqual(['missing', 'missing', 'note']);
    expect(of(old, 'CUDA')[0].text).toBe('cuda:0 is Tesla T4, 7.5; the addon has no kernels for it');
    expect(of(old, 'CUDA')[2].remedy).toMatch(/12\.4/);
    // Where there is no GPU, nobody misses its kernels.
    const bare = {...none, gpu: BARE.gpu};
    expect(of(bare, 'CUDA')).toEqual([]);
    const cpu = {...FULL, tensorflow: {...FULL.tensorflow, onGpu: false}};
    expect(of(cpu, 'tensorflow')[0].text).toMatch(/^C\+\+ kernels.*setNativeDevice.*, as an operation of TensorFlow$/);
  });

  it('says when TensorFlow leaves a GPU alone, does not load, or computes wrongly', () => {
    const on = (change: Partial<Facts['tensorflow']>) => ({...FULL, tensorflow: {...FULL.tensorflow, ...change}});
    expect(of(on({onGpu: false}), 'TensorFlow')[1].remedy).toMatch(/setup-tfjs-node --gpu$/);
    expect(of(on({error: 'no addon'}), 'tfjs-node')[0].text).toMatch(/does not load: no addon$/);
    expect(of(on({error: 'no addon'}), 'tensorflow')[0].state).toBe('missing');
    expect(of(on({computes: false}), 'tensorflow')[0].text).toMatch(/^does not work: .*wrong numbers/);
    expect(of(on({kernel: 'TypeScript'}), 'tensorflow')[0].text).toBe('the TypeScript kernel');
  });

  it('knows an adapter that is an emulation, and passes on what WebGPU says', () => {
    const report = {...FULL.webgpu.report!, hardware: false, features: [], missing: [{name: 'f16', wouldGive: 'it'}]};
    const emulated = {...FULL, webgpu: {...FULL.webgpu, report}};
    expect(of(emulated, 'WebGPU').length).toBe(1);
    expect(of(emulated, 'WebGPU')[0].text).toContain('an emulation on the CPU');
    expect(of(emulated, 'webgpu')[0].text).toBe('WGSL kernels: simt, decode');
    const none = {version: '0.6.2', hasBackend: true, error: 'flashAttention: there is none; install a driver'};
    expect(of({...FULL, webgpu: none}, 'WebGPU')[0]).toEqual(
        {title: 'WebGPU', state: 'missing', text: 'there is none; webgpu 0.6.2', remedy: 'install a driver'});
    expect(of({...FULL, webgpu: {version: '0.6.2', hasBackend: false}}, 'WebGPU')[0].remedy)
        .toBe('npm install @tensorflow/tfjs-backend-webgpu');
  });

  it('says that the addon is switched off', () => {
    expect(of({...FULL, addon: {off: true}}, 'Addon')[0]).toEqual(jasmine.objectContaining(
        {state: 'missing', text: 'switched off by FLASH_ATTENTION_NATIVE'}));
  });

  it('reads CPU features as the compilers group them', () => {
    expect(readCpuFeatures(cpuinfo(V4)).instructionSet).toBe('avx512');
    expect(readCpuFeatures(cpuinfo(V4)).features).toEqual(['avx2', 'fma', 'avx512f']);
    expect(readCpuFeatures(cpuinfo(V4.replace(' avx512vl', ''))).instructionSet).toBe('avx2');
    expect(readCpuFeatures(cpuinfo(V3)).instructionSet).toBe('avx2');
    expect(readCpuFeatures(cpuinfo(V3.replace(' fma', ''))).instructionSet).toBe('portable');
    expect(readCpuFeatures('processor : 0\n')).toEqual({features: undefined, instructionSet: undefined});
    expect(readCpu().cores).toBeGreaterThan(0);
  });

  it('reads nvidia-smi', () => {
    expect(readSmi('NVIDIA H100 80GB HBM3, 570.86, 81559 MiB\nTesla T4, 570.86, 15360 MiB\n')).toEqual([
      {name: 'NVIDIA H100 80GB HBM3', driver: '570.86', memory: '81559 MiB'},
      {name: 'Tesla T4', driver: '570.86', memory: '15360 MiB'},
    ]);
    expect(readSmi('')).toEqual([]);
  });

  it('sees whether a library can be loaded', () => {
    expect(canLoad('libnothing_of_this_name.so.1')).toBeFalse();
    if (process.platform === 'linux') {
      expect(canLoad('libm.so.6')).toBeTrue();
    }
  });
});
