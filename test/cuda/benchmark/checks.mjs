// benchmarks/cuda without a GPU: its parts by a program in Python, and the whole of it with the kernels emulated on the
// CPU behind a fake libcuda. Needs a Python with PyTorch: that of the environment variable PYTORCH_PYTHON, or python3.
import {spawnSync} from 'node:child_process';
import {mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {buildBenchmarkLibrary} from '../../../scripts/build_cuda_benchmark.mjs';
import {check, root, run, skip} from '../../support/checks.mjs';

const NAME = 'the benchmark beside PyTorch';
const LIBRARY = 'build/cuda_emulated_library/libflash_attention_cuda.so';
const DRIVER = 'build/cuda_emulated/libcuda.so';
/** One head, one batch of each. mma.sync kernels: what is emulated. */
const SMALL = ['--device=cpu', '--tokens=64', '--width=64', '--lengths=64', '--sizes=64', '--warm-up-ms=0',
  '--batch-ms=0', '--batches=1', '--kinds=flash,math', `--library=${join(root, LIBRARY)}`];

function compare(python, args, env = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'compare-'));
  try {
    const {status, stdout, stderr} = spawnSync(
        python, ['benchmarks/cuda/compare.py', ...SMALL, `--out=${folder}`, ...args],
        {cwd: root, encoding: 'utf8', timeout: 300_000,
          env: {...process.env, FAKE_CUDA: 'major=8', FLASH_ATTENTION_LIBCUDA: join(root, DRIVER), ...env}});
    const files = Object.fromEntries(readdirSync(folder).filter(name => name.endsWith('.json')).map(
        name => [name, JSON.parse(readFileSync(join(folder, name), 'utf8'))]));
    return {status, text: stdout + stderr, files};
  } finally {
    rmSync(folder, {recursive: true});
  }
}

function expect(isTrue, what, {text}) {
  if (!isTrue) {
    throw new Error(`expected ${what}:\n${text}`);
  }
}

const own = ({results}) => results.filter(({kind}) => kind === 'flash')
    .map(row => `${row.pass}${row.conversions ? ' with conversions' : ''}`).join();
const ALL = 'forward,forward with conversions,backward,backward with conversions';

export async function checkBenchmark() {
  const python = [process.env.PYTORCH_PYTHON, 'python3'].filter(Boolean)
      .find(name => spawnSync(name, ['-c', 'import torch']).status === 0);
  if (!python) {
    skip(NAME, 'no Python with PyTorch; PYTORCH_PYTHON may name one');
    return;
  }
  await check(`${NAME}: references, timing, tables`, () => {
    run(python, ['test/cuda/benchmark/compare_test.py'], {cwd: root});
  });
  await check(`${NAME}: its library, and a fake libcuda that emulates the kernels`, async () => {
    run('test/cuda/benchmark/build.sh', ['build/cuda_emulated'], {cwd: root});
    await buildBenchmarkLibrary(['test/cuda/benchmark/emulated_images.cc'], LIBRARY, () => {});
  });
  await check(`${NAME}: kernels are judged, and timed alone and with conversions`, () => {
    const made = compare(python, ['--parts=attention', '--compute=bfloat16', '--profile']);
    const file = made.files['cuda-attention-cpu.json'];
    expect(made.status === 0 && file?.skipped.length === 0 && file.results.length === 8, '8 rows', made);
    expect(/forward ms: .*flash_forward_bf16_64_plain 1\.000/.test(made.text), 'times by kernels', made);
    expect(file.results.every(({share}) => share > 0.01 && share <= 1), 'errors that are allowed', made);
    const [alone, whole] = file.results.map(({kernels}) => kernels);
    expect(whole.some(name => name.startsWith('flash_convert')) && whole.length > alone.length, 'fewer kernels', made);
  });
  await check(`${NAME}: wrong results and processes that end are reported, and cost no other row`, () => {
    const args = ['--parts=attention', '--compute=bfloat16,float32', '--kinds=flash'];
    const spoilt = compare(python, args, {FAKE_CUDA_SPOIL: 'flash_d_query_bf16_64_plain'});
    const files = ({files}) => files['cuda-attention-cpu.json'];
    expect(spoilt.status === 1 && /WRONG .*bfloat16 backward: d_q/.test(spoilt.text), 'a wrong dQ', spoilt);
    const of = (made, compute, causal) => own({results: files(made).results.filter(
        row => row.computeType === compute && row.causal === causal)});
    expect(of(spoilt, 'bfloat16', true) === 'forward,forward with conversions', 'forward rows alone', spoilt);
    expect(of(spoilt, 'float32', true) === ALL, 'rows of float32', spoilt);
    const crashed = compare(python, args, {FAKE_CUDA_CRASH: 'flash_d_query_bf16_64_plain'});
    expect(crashed.status === 1 && /FAILED .*bfloat16: the process ended/.test(crashed.text), 'an end', crashed);
    expect(of(crashed, 'bfloat16', true) === 'forward,forward with conversions', 'what was measured before', crashed);
    expect(of(crashed, 'float32', false) === ALL, 'what comes after', crashed);
  });
  await check(`${NAME}: decoding, a long sequence, and a machine without a driver`, () => {
    const made = compare(python, ['--parts=decode,long', '--long=128', '--decode-keys=64']);
    const kinds = made.files['cuda-decode-cpu.json']?.results.map(({kind}) => kind).join();
    expect(made.status === 0 && kinds === 'copy,flash,math', 'decoding', made);
    const long = made.files['cuda-attention-cpu.json'].results;
    expect(long.length === 4 && long.every(({length, series}) => length === 128 && series === 'long'), 'long', made);
    const none = compare(python, ['--parts=decode', '--decode-keys=64'], {FLASH_ATTENTION_LIBCUDA: '/nowhere.so'});
    expect(none.status === 1 && none.text.includes('no NVIDIA driver is installed'), 'no driver', none);
    expect(none.files['cuda-decode-cpu.json'].results.length === 2, 'the others all the same', none);
  });
}
