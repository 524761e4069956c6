// What of the CUDA part needs no GPU: the compiler's report on every kernel (with nvcc), the kernels' own source on
// emulated multiprocessors, and the host's part on a fake libcuda (with g++). Leaves its counts in
// build/cuda_counts.json.
import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {join} from 'node:path';

import {buildImages, FOLDER} from '../../scripts/build_cuda/build.mjs';
import {fetchNvcc, findNvcc} from '../../scripts/build_cuda/nvcc.mjs';
import {problemsOf, readReports, tableOf} from '../../scripts/build_cuda/ptxas_report.mjs';
import {check, root, run, skip, writeCounts} from '../support/checks.mjs';
import {checkBenchmark} from './benchmark/checks.mjs';
import {buildFake, buildHostProgram, buildTensorFlowProgram} from './build_programs.mjs';

const CALLS = 'build/sanitizers/calls.bin';
const GRID_CASES = process.env.TEST_FULL ? 300 : 0;

function expectText(text, ...parts) {
  for (const part of parts) {
    if (part instanceof RegExp ? !part.test(text) : !text.includes(part)) {
      throw new Error(`expected ${part} in:\n${text}`);
    }
  }
}

// .ci/run has it fetched where it is not there.
const nvcc = await findNvcc() ?? (process.env.FETCH_NVCC ? await fetchNvcc(line => console.log(line)) : undefined);
const REPORT = 'the compiler reports no spills, no local memory and no serialised wgmma';
if (nvcc) {
  await check(REPORT, async () => {
    // Where npm pack finds them.
    const {kernels, sizes} = await buildImages(nvcc);
    const reports = readReports(FOLDER);
    console.log(tableOf(reports.flatMap(({report}) => report.kernels)));
    const kB = [...sizes].map(([target, size]) => `${target} ${(size / 1000).toFixed(1)} kB`);
    console.log(`        ${kernels} kernels; ${kB.join(', ')}`);
    const problems = reports.flatMap(({name, report}) => problemsOf(report).map(problem => `${name}: ${problem}`));
    if (problems.length > 0 || kernels === 0) {
      throw new Error(problems.join('\n') || 'there are no kernels');
    }
  });
} else {
  skip(REPORT, 'there is no nvcc of CUDA 13 or newer');
}

await check('the kernels\' own source, on emulated multiprocessors, gives what the kernels for CPUs give', () => {
  const folder = 'build/cuda_emulated';
  run('sh', ['test/cuda/build.sh', folder], {cwd: root});
  for (const test of ['layout_test', 'plan_test', 'hopper_layouts_test', 'hopper_order_test', 'hopper_pipeline_test',
    'emulate_test']) {
    const last = run(join(root, folder, test), [], {cwd: root, maxBuffer: 1e8}).trimEnd().split('\n').at(-1);
    console.log(`        ${last}`);
    if (test === 'emulate_test') {
      expectText(last, /^[1-9]\d+ kernels run, 0 not, 0 failed$/);
    }
  }
});

const quiet = line => /^\[/.test(line) || console.log(line);
const fakes = {};
let driver;
await check('the host\'s part and a fake libcuda are built', async () => {
  fakes.new = await buildFake('fake_libcuda', []);
  fakes.old = await buildFake('fake_libcuda_old', ['FAKE_OLD']);
  fakes.incomplete = await buildFake('fake_libcuda_incomplete', ['cuMemHostAlloc=cuMemHostAllocNot']);
  driver = await buildHostProgram('driver_program', ['address', 'undefined'], quiet);
});

/** @returns what driver_program says */
function drive(settings, {library = fakes.new, kernel = 'flash_probe', status = 0, env = {}} = {}) {
  const result = spawnSync(join(root, driver), kernel ? [kernel] : [], {
    cwd: root, encoding: 'utf8',
    // The fake keeps its streams, as a driver would.
    env: {...process.env, ASAN_OPTIONS: 'detect_leaks=0', FAKE_CUDA: settings,
      FLASH_ATTENTION_LIBCUDA: library && join(root, library), ...env},
  });
  if (result.status !== status) {
    throw new Error(`ended with ${result.signal ?? result.status}:\n${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

if (driver) {
  await check('a kernel is found, loaded and launched, and its results come back', () => {
    expectText(drive('devices=2,memory=1000000'), 'driver: none', 'version 13.0, context events yes',
        'device 1: Fake 1, 9.0, 1000000 bytes', 'pools yes', 'ordinal 0', 'shared 102400', 'values: right');
    expectText(drive('pools=0'), 'pools no', 'values: right');
  });
  await check('without events of contexts the streams are waited for', () => {
    expectText(drive('version=12030', {library: fakes.old}), 'version 12.3, context events no', 'values: right');
  });
  await check('a driver that is not there, too old, incomplete or without devices is said to be so', () => {
    const missing = {kernel: '', status: 1, env: {FLASH_ATTENTION_LIBCUDA: '/nowhere/libcuda.so.1'}};
    expectText(drive('', missing), 'driver: unavailable: no NVIDIA driver is installed (/nowhere/libcuda.so.1');
    expectText(drive('version=11010', {status: 1}), 'unavailable: the NVIDIA driver is one for CUDA 11.1: install');
    expectText(drive('', {status: 1, library: fakes.incomplete}), 'the NVIDIA driver has no cuMemHostAlloc: install');
    expectText(drive('devices=0', {status: 1}), 'unavailable: the NVIDIA driver sees no device');
    expectText(drive('fail=cuInit:100', {status: 1}), 'unavailable: cuInit: CUDA_ERROR_NO_DEVICE (in words)');
    expectText(drive('fail=cuInit:999', {status: 1}), 'failed: cuInit: error 999 (in words)');
  });
  await check('a device can be chosen, and one without kernels is said to have none', () => {
    const choose = (device, status) => ({status, env: {FLASH_ATTENTION_CUDA_DEVICE: device}});
    expectText(drive('devices=3', choose('2', 0)), 'ordinal 2', 'values: right');
    expectText(drive('devices=3', choose('3', 1)), 'expected FLASH_ATTENTION_CUDA_DEVICE from 0 to 2');
    expectText(drive('devices=3', choose('gpu', 1)), 'expected a number for FLASH_ATTENTION_CUDA_DEVICE');
    expectText(drive('major=7,minor=5', {status: 1}),
        'this addon has kernels for none of CUDA device 0 (Fake 0, compute capability 7.5)');
  });
  await check('each device gets the image that suits it best', () => {
    // A kernel that only 9.0 has, in an image that cannot be loaded: whether it is tried shows which was picked.
    const broken = {kernel: 'broken_kernel', status: 1};
    expectText(drive('', broken), 'unavailable: cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE');
    expectText(drive('version=12080', broken), 'one for CUDA 12.8 and the kernels were made with CUDA 13.0; install');
    expectText(drive('major=8,minor=6', broken), 'has no kernels in this addon');
    expectText(drive('', {kernel: 'nothing', status: 1}), 'there is no kernel nothing in this addon');
    for (const device of ['major=8,minor=9', 'major=10,minor=3', 'major=12', 'major=11']) {
      expectText(drive(device), 'values: right');
    }
    expectText(drive('major=9,minor=1', {status: 1}), 'has kernels for none of');
  });
  await check('busy, lost and full devices are told apart, and a lost one stays lost', () => {
    expectText(drive('fail=cuDevicePrimaryCtxRetain:46', {status: 1}),
        'selected: busy: CUDA device 0', 'cannot be used', 'CUDA_ERROR_DEVICE_UNAVAILABLE');
    expectText(drive('memory=1000', {status: 1}),
        /out of memory: 4096 bytes on CUDA device 0 .*CUDA_ERROR_OUT_OF_MEMORY/);
    expectText(drive('pools=0,memory=1000', {status: 1}), 'out of memory', 'again: none');
    expectText(drive('fail=cuStreamSynchronize:719', {status: 1}),
        'wait: lost: cuStreamSynchronize: CUDA_ERROR_LAUNCH_FAILED', 'again: lost', 'Start the process again');
  });
}

if (!existsSync(join(root, CALLS))) {
  await check('the calls of the case table', () => {
    run(process.execPath, ['--import', 'tsx', 'test/sanitizers/dump_cases.ts', CALLS, `${GRID_CASES}`], {cwd: root});
  });
}
await check('calls on host memory, whole and in pieces, give what they should; failures lose nothing', async () => {
  const program = await buildHostProgram('host_call_program', ['address', 'undefined'], quiet);
  const text = run(join(root, program), [CALLS], {
    cwd: root, maxBuffer: 1e8,
    env: {...process.env, ASAN_OPTIONS: 'detect_leaks=0', FAKE_CUDA: '',
      FLASH_ATTENTION_LIBCUDA: join(root, fakes.new)},
  });
  const last = text.trimEnd().split('\n').at(-1);
  console.log(`        ${last}`);
  const {calls, cut, checks} = JSON.parse(last);
  if (!(calls >= 390 && cut >= 200 && checks >= 3 * calls)) {
    throw new Error('expected at least 390 calls, 200 of their runs in pieces');
  }
});
await check('TensorFlow\'s ops on its GPU give what they should, in the order of its own stream', async () => {
  const program = await buildTensorFlowProgram('tensorflow_gpu_program', ['address', 'undefined'], quiet);
  for (const [library, settings] of [[fakes.new, ''], [fakes.old, 'version=12030']]) {
    const text = run(join(root, program), [CALLS], {
      cwd: root, maxBuffer: 1e8,
      env: {...process.env, ASAN_OPTIONS: 'detect_leaks=0', FAKE_CUDA: settings,
        FLASH_ATTENTION_LIBCUDA: join(root, library)},
    });
    const last = text.trimEnd().split('\n').at(-1);
    console.log(`        ${last}`);
    const {calls, appends, checks} = JSON.parse(last);
    if (!(calls >= 390 && appends >= 4 && checks >= 4 * calls)) {
      throw new Error('expected at least 390 calls, 4 of them to append');
    }
  }
});
await check('the runner for devices judges: it passes the kernels for CPUs, and sees what goes wrong', async () => {
  const runner = await buildTensorFlowProgram('runner', [], quiet, ['FLASH_ATTENTION_CPU_DOOR']);
  const judge = (settings, ...args) => {
    const {status, stdout} = spawnSync(join(root, runner), [...args, CALLS], {
      cwd: root, encoding: 'utf8', maxBuffer: 1e9,
      env: {...process.env, FAKE_CUDA: `pageable=1,${settings}`, FLASH_ATTENTION_LIBCUDA: join(root, fakes.new)},
    });
    return {status, text: stdout, last: JSON.parse(stdout.trimEnd().split('\n').at(-1))};
  };
  for (const way of [['--way=device', '--repeat=2'], ['--way=host', '--pieces=3'], ['--way=tensorflow']]) {
    const {status, text, last} = judge('', ...way);
    if (status !== 0 || last.failures !== 0 || !(last.calls >= 380)) {
      throw new Error(`${way}: ${text.slice(-2000)}`);
    }
    console.log(`        ${way.join(' ')}: ${JSON.stringify(last)}`);
  }
  // Copies that are lost leave what was there before.
  const {status, last} = judge('lose=200', '--way=device', '--match=causal');
  if (status === 0 || last.failures === 0 || last.ok) {
    throw new Error('a lost copy was not seen');
  }
});
await checkBenchmark();
writeCounts('cuda');
