/**
 * Trains a small model with attention in changing shapes and options for long, and looks whether memory stays flat;
 * then repeats calls and looks whether they give the same bits. Here, and on machines that the test runner does not
 * reach:
 *   npx tsx test/soak_device.ts [--steps 200] [--repeats 20] [--seconds 0] [--backend webgpu] [--out FOLDER]
 * --seconds ends the training after that long (0 is no limit). With --out it leaves soak-<device>.json there. Exit code
 * 1 when something grows or differs. On SwiftShader, --dawn-flags enable-dawn-features=disable_workgroup_init spares
 * minutes of compiling.
 */
import {execFileSync} from 'node:child_process';
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {setFlagsFromString} from 'node:v8';
import {runInNewContext} from 'node:vm';

import * as tf from '@tensorflow/tfjs';

import {slug} from '../benchmarks/core/slug.js';
import {describeEnvironment, useBackend} from '../benchmarks/environment.js';
import {isOnGpu} from '../src/backends/native/tensorflow_kernels.js';
import {keptSizes} from '../src/backends/webgpu/device.js';
import {enableWebGPU, nativeReport} from '../src/node.js';

import {makeCase} from './support/case.js';
import type {Row} from './support/case.js';
import {caseInputs} from './support/cases.js';
import {attentionOf} from './support/run_case.js';
import {courses} from './support/soak_memory.js';
import type {MemorySample} from './support/soak_memory.js';
import {Soak} from './support/soak_steps.js';
import {deviceErrors, deviceOf, webgpuBackend} from './support/webgpu_device.js';

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  steps: {type: 'string', default: '200'},
  repeats: {type: 'string', default: '20'},
  seconds: {type: 'string', default: '0'},
  out: {type: 'string'},
  'dawn-flags': {type: 'string'},
}});
const [steps, repeats, seconds] = [args.steps, args.repeats, args.seconds].map(Number);

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** The problems that are repeated: enough keys, heads and options that an order of sums could differ. */
const REPEATED: readonly Row[] = [
  {queryLength: 256, keyLength: 256, queryHeads: 4, headSize: 64, causal: true},
  {queryLength: 200, keyLength: 300, queryHeads: 8, keyHeads: 2, headSize: 128, batch: 2},
  {queryLength: 3, keyLength: 2000, queryHeads: 4, headSize: 64, causal: true},
  {queryLength: 130, keyLength: 130, headSize: 40, values: 'large', causal: true},
  {queryLength: 130, keyLength: 170, headSize: 96, dropoutP: 0.2, seed: 3, softcap: 10, alibi: 'head'},
  {
    queryLength: 140, keyLength: 140, batch: 2, queryHeads: 4, headSize: 32, lengths: 'both', sinks: true,
    biasSpec: {shape: [1, 4, 140, 140], values: 'normal'}, maskSpec: {shape: [2, 1, 140, 140], hidden: 0.3},
  },
  {
    queryLength: 120, keyLength: 90, queryHeads: 4, keyHeads: 1, headSize: 24, windowSize: [50, 10], layout: 'bhnd',
    biasSpec: {shape: [1, 1, 1, 90], values: 'normal'},
  },
];

/** What all processes have of the NVIDIA GPUs here. */
function usedMegabytes(): number {
  const list = execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits']);
  return String(list).trim().split('\n').reduce((sum, line) => sum + Number(line), 0);
}

function sample(): MemorySample {
  collectGarbage();
  const {numTensors, numBytes, numDataBuffers} = tf.memory();
  const {heapUsed, rss} = process.memoryUsage();
  const common = {numTensors, numBytes, numDataBuffers, heapUsed, rss};
  if (isOnGpu(tf.backend())) {
    return {...common, gpuMegabytes: usedMegabytes()};
  }
  if (args.backend !== 'webgpu') {
    return common;
  }
  const {bufferManager} = webgpuBackend();
  return {
    ...common,
    dataIds: webgpuBackend().numDataIds(),
    gpuBytesAllocated: bufferManager.numBytesAllocated,
    gpuBytesUsed: bufferManager.numBytesUsed,
    gpuBuffers: bufferManager.getNumUsedBuffers() + bufferManager.getNumFreeBuffers(),
    ...keptSizes(deviceOf()),
  };
}

const [WARM_UP_CYCLES, MOST_SAMPLES, FEWEST_SAMPLES] = [3, 60, 3];

async function train(problems: string[]) {
  const cycles = Math.ceil(steps / Soak.cycle) - WARM_UP_CYCLES;
  if (cycles < FEWEST_SAMPLES) {
    const fewest = (WARM_UP_CYCLES + FEWEST_SAMPLES) * Soak.cycle;
    throw new Error(`expected at least ${fewest} for --steps, received ${steps}`);
  }
  const every = Math.ceil(cycles / MOST_SAMPLES);
  const soak = new Soak();
  const samples: MemorySample[] = [];
  const start = performance.now();
  const losses: number[] = [];
  for (let cycle = -WARM_UP_CYCLES; cycle < cycles; cycle++) {
    let loss = 0;
    for (let n = 0; n < Soak.cycle; n++) {
      loss += await soak.step() / Soak.cycle;
    }
    losses.push(loss);
    if (cycle >= 0 && cycle % every === 0) {
      samples.push(sample());
    }
    if (seconds > 0 && performance.now() - start > 1000 * seconds && samples.length >= FEWEST_SAMPLES) {
      break;
    }
  }
  soak.dispose();
  const trained = losses.length * Soak.cycle;
  const taken = (performance.now() - start) / 1000;
  const memory = courses(samples);
  console.log(`${trained} steps of ${Soak.kinds.length} kinds in ${taken.toFixed(0)} s, mean loss ` +
      `${losses[0].toFixed(4)} → ${losses[losses.length - 1].toFixed(4)}; after ${WARM_UP_CYCLES * Soak.cycle} steps:`);
  for (const {name, first, last, allowed, flat} of memory) {
    const [from, to] = [first, last].map(value => String(value).padStart(12));
    console.log(`  ${name.padEnd(18)} ${from} → ${to} ${flat ? 'flat' : 'GROWS'}`);
    if (!flat) {
      problems.push(`${name} grew from ${first} to ${last}, over ${allowed}`);
    }
  }
  if (!(losses[losses.length - 1] < losses[0])) {
    problems.push(`the loss did not fall: ${losses[0]} → ${losses[losses.length - 1]}`);
  }
  return {
    steps: trained, seconds: taken, kinds: Soak.kinds, losses: [losses[0], losses[losses.length - 1]], memory, samples,
  };
}

const bitsOf = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

async function repeat(problems: string[]) {
  const repeated: string[] = [];
  for (const row of REPEATED) {
    const c = makeCase(row, 1);
    const inputs = caseInputs(c);
    const first = await attentionOf(c, inputs);
    const different = new Set<string>();
    for (let n = 1; n < repeats; n++) {
      for (const [name, values] of Object.entries(await attentionOf(c, inputs))) {
        if (!bitsOf(values!).equals(bitsOf(first[name as keyof typeof first]!))) {
          different.add(name);
        }
      }
    }
    if (different.size > 0) {
      problems.push(`${c.name}: ${[...different].join(', ')} differ between repeats`);
    }
    repeated.push(c.name);
  }
  console.log(`${repeated.length} problems, forward and all gradients, ${repeats} times each: ` +
      `${problems.some(text => text.includes('differ')) ? 'DIFFERENT' : 'the same'} bits`);
  return {repeats, cases: repeated};
}

if (args['dawn-flags'] !== undefined) {
  await enableWebGPU({dawnFlags: args['dawn-flags'].split(' ')});
}
const environment = describeEnvironment(await useBackend(args.backend));
if (isOnGpu(tf.backend())) {
  environment.device = nativeReport().cuda?.devices[0].name ?? environment.device;
}
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}`);
const problems: string[] = [];
let contents = {};
const run = async () => {
  contents = {training: await train(problems), determinism: await repeat(problems), calls: nativeReport().calls};
};
const errors = args.backend === 'webgpu' ? await deviceErrors(run) : (await run(), []);
problems.push(...new Set(errors.map(message => `device error: ${message.split('\n')[0]}`)));
problems.forEach(problem => console.log(`FAILED: ${problem}`));
if (args.out) {
  mkdirSync(args.out, {recursive: true});
  writeFileSync(
      join(args.out, `soak-${slug(environment.device)}.json`),
      `${JSON.stringify({environment, ...contents, problems}, null, 1)}\n`);
}
console.log(problems.length === 0 ? 'passed' : `${problems.length} failed`);
process.exit(problems.length > 0 ? 1 : 0);
