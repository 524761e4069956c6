import * as tf from '@tensorflow/tfjs';

import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities, DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {candidates, choosePlan, explainChoice, forcePlan, planKind} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {describePlan, printPlan} from '../../src/backends/webgpu/debug.js';
import type {KernelName} from '../../src/backends/webgpu/kernel_names.js';
import {makePlan} from '../../src/backends/webgpu/plan.js';
import {problemClass} from '../../src/backends/webgpu/problem_class.js';
import type {ComputeType} from '../../src/op/options.js';
import {makeProblem} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

const LIMITS = {
  maxComputeWorkgroupStorageSize: 32768, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024,
} as DeviceLimits;
const STOCK = stockCapabilities(LIMITS);
const SUBGROUPS: Capabilities = {...STOCK, subgroups: {min: 4, max: 128}};

const MATRICES: Capabilities = {
  limits: {
    ...LIMITS, maxStorageBuffersPerShaderStage: 16, maxStorageBufferBindingSize: 2 ** 30, maxBufferSize: 2 ** 30,
  },
  subgroups: {min: 32, max: 32}, f16: true, matrix: [{M: 16, N: 16, K: 16}],
};

function problem(
    queryLength: number, keyLength: number, queryHeads = 8, keyHeads = 8,
    computeType: ComputeType = 'float32'): Problem {
  const keys = {shape: [1, keyLength, keyHeads, 64]};
  return makeProblem({q: {shape: [1, queryLength, queryHeads, 64]}, k: keys, v: keys}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
    dropoutP: 0, seed: 0, computeType, deterministic: true,
  });
}

const biased = (length: number): Problem => ({...problem(length, length), biasShape: [1, 1, length, length]});

describe('the choice of a plan', () => {
  const table: Array<[KernelName, Problem, Capabilities, PlanKind]> = [
    ['forward', problem(512, 512), STOCK, 'simt'],
    ['forward', problem(512, 512), SUBGROUPS, 'subgroup'],
    ['backward_dq', problem(512, 512), SUBGROUPS, 'simt'],
    ['backward_dkv', problem(512, 512), SUBGROUPS, 'simt'],
    ['row_statistics', problem(512, 512), SUBGROUPS, 'simt'],
  ];
  for (const [kernel, of, capabilities, kind] of table) {
    const {queryLength, keyLength, queryHeads, keyHeads} = of;
    it(`is ${kind} for ${kernel}, Nq${queryLength} Nk${keyLength} Hq${queryHeads} Hkv${keyHeads}, ` +
       `${capabilities.subgroups ? 'with' : 'without'} subgroups`, () => {
      expect(choosePlan(kernel, of, capabilities)).toBe(kind);
      expect(explainChoice(kernel, of, capabilities).why).not.toBe('');
    });
  }

  it('for a gradient is one that rounds its scores as the backward kernels do, also where another is forced', () => {
    expect(planKind('forward', problem(1, 4096), STOCK, true).kind).toBe('simt');
    expect(planKind('forward', problem(1, 4096), SUBGROUPS, true).kind).toBe('subgroup');
    try {
      forcePlan('decode');
      expect(planKind('forward', problem(1, 4096), SUBGROUPS, true).kind).toBe('subgroup');
      forcePlan('matrix_split');
      expect(planKind('forward', problem(512, 512), MATRICES).kind).toBe('matrix_split');
      expect(planKind('forward', problem(512, 512), MATRICES, true).kind).toBe('matrix_split');
      expect(planKind('backward_dq', problem(512, 512), MATRICES).kind).toBe('matrix_split');
      // The gradient of a bias is made without matrices, but not the others.
      expect(planKind('forward', biased(512), MATRICES, true).kind).toBe('matrix_split');
      expect(planKind('backward_dq', biased(512), MATRICES).kind).toBe('matrix_split');
      expect(planKind('backward_dbias', biased(512), MATRICES).kind).toBe('simt');
      forcePlan('simt');
      expect(planKind('forward', problem(1, 4096), SUBGROUPS, true).kind).toBe('simt');
    } finally {
      forcePlan(undefined);
    }
  });

  it('can be forced, where the kernel has the kind', () => {
    try {
      forcePlan('matrix');
      expect(planKind('row_statistics', problem(9, 9), STOCK).kind).toBe('simt');
      forcePlan('simt');
      expect(planKind('forward', problem(1, 4096), SUBGROUPS)).toEqual({kind: 'simt', why: 'forced'});
      forcePlan('subgroup');
      expect(planKind('forward', problem(512, 512), SUBGROUPS).kind).toBe('subgroup');
      expect(planKind('backward_dq', problem(512, 512), STOCK).kind).toBe('simt');
      expect(() => planKind('forward', problem(512, 512), STOCK)).toThrowError(
          /the plan 'subgroup' that was forced cannot run this forward: the device has no subgroups/);
      forcePlan('decode');
      expect(() => planKind('forward', problem(5, 512), SUBGROUPS)).toThrowError(/more than 4 queries/);
    } finally {
      forcePlan(undefined);
    }
  });
});

describe('the plans that tune times', () => {
  const half = problem(512, 512, 8, 8, 'float16');
  const table: Array<[what: string, Problem, Capabilities, withGradients: boolean, kinds: PlanKind[]]> = [
    ['a stock device', problem(512, 512), STOCK, false, ['simt']],
    ['few queries on it', problem(1, 512), STOCK, false, ['simt', 'decode']],
    ['subgroups', problem(512, 512), SUBGROUPS, true, ['simt', 'subgroup']],
    ['few queries', problem(4, 512), SUBGROUPS, false, ['simt', 'subgroup', 'decode']],
    ['few queries with gradients', problem(4, 512), SUBGROUPS, true, ['simt', 'subgroup']],
    ['matrices and float32 with gradients', problem(512, 512), MATRICES, true, ['simt', 'subgroup', 'matrix_split']],
    ['matrices, float32 and a bias with gradients', biased(512), MATRICES, true, ['simt', 'subgroup', 'matrix_split']],
    ['matrices and float32', problem(512, 512), MATRICES, false, ['simt', 'subgroup', 'matrix_split']],
    ['matrices and tensorfloat32', problem(512, 512, 8, 8, 'tensorfloat32'), MATRICES, false,
      ['simt', 'subgroup', 'matrix_split']],
    ['matrices and float16', half, MATRICES, true, ['simt', 'subgroup', 'matrix']],
    ['matrices and bfloat16', problem(512, 512, 8, 8, 'bfloat16'), MATRICES, false, ['simt', 'subgroup', 'matrix']],
    ['few queries in float16', problem(2, 512, 8, 8, 'float16'), MATRICES, false,
      ['simt', 'subgroup', 'matrix', 'decode']],
    ['float16 without matrices', half, SUBGROUPS, true, ['simt', 'subgroup']],
  ];
  for (const [what, of, capabilities, withGradients, kinds] of table) {
    it(`are ${kinds.join(', ')}: ${what}`, () => expect(candidates(of, capabilities, withGradients)).toEqual(kinds));
  }
});

describe('a winner', () => {
  const wins = (kind: PlanKind, of: Problem, on: Capabilities, forGradient = false): Capabilities =>
      ({...on, winners: {[problemClass(of, forGradient)]: kind}});
  const many = problem(512, 512);
  const few = problem(3, 4096);
  const half = problem(512, 512, 8, 8, 'float16');

  it('is chosen for its class, and for no other', () => {
    expect(explainChoice('forward', many, wins('simt', many, SUBGROUPS)))
        .toEqual({kind: 'simt', why: 'the fastest that tune found'});
    expect(choosePlan('forward', problem(500, 300), wins('simt', many, SUBGROUPS))).toBe('simt');
    expect(choosePlan('forward', problem(64, 64), wins('simt', many, SUBGROUPS))).toBe('subgroup');
    expect(choosePlan('row_statistics', many, wins('subgroup', many, SUBGROUPS))).toBe('simt');
  });

  it('is not chosen where the device or the problem does not allow it', () => {
    expect(choosePlan('forward', many, wins('subgroup', many, STOCK))).toBe('simt');
    expect(choosePlan('forward', many, wins('decode', many, SUBGROUPS))).toBe('subgroup');
    expect(choosePlan('forward', many, wins('matrix', many, MATRICES))).toBe('subgroup');
    expect(choosePlan('forward', half, wins('matrix', half, {...MATRICES, matrix: []}))).toBe('subgroup');
    expect(choosePlan('forward', few, wins('simt', few, SUBGROUPS))).toBe('simt');
  });

  it('is not chosen for a gradient where it rounds otherwise, nor where another is forced', () => {
    expect(explainChoice('forward', few, wins('decode', few, SUBGROUPS, true), true).kind).toBe('subgroup');
    expect(explainChoice('forward', many, wins('matrix_split', many, MATRICES, true), true).kind).toBe('matrix_split');
    forcePlan('subgroup');
    try {
      expect(planKind('forward', many, wins('simt', many, SUBGROUPS))).toEqual({kind: 'subgroup', why: 'forced'});
    } finally {
      forcePlan(undefined);
    }
  });

  it('has the backward kernels follow: they round scores as the forward pass does', () => {
    const both = (of: Problem, on: Capabilities) => [
      explainChoice('forward', of, on, true).kind, choosePlan('backward_dq', of, on),
      choosePlan('backward_dkv', of, on),
    ];
    expect(both(half, MATRICES)).toEqual(['matrix', 'matrix', 'matrix']);
    expect(both(many, wins('matrix_split', many, MATRICES, true))).toEqual(
        ['matrix_split', 'matrix_split', 'matrix_split']);
    expect(both(many, MATRICES)).toEqual(['subgroup', 'simt', 'simt']); // too few pairs
    expect(both(half, wins('subgroup', half, MATRICES, true))).toEqual(['subgroup', 'simt', 'simt']);
    expect(both(half, wins('subgroup', half, MATRICES))).toEqual(['matrix', 'matrix', 'matrix']); // without gradients
    const small = problem(16, 16, 1, 1, 'float16');
    expect(both(small, MATRICES)).toEqual(['subgroup', 'simt', 'simt']);
    expect(both(small, wins('matrix', small, MATRICES, true))).toEqual(['matrix', 'matrix', 'matrix']);
    expect(explainChoice('backward_dq', half, wins('matrix', half, MATRICES, true)).why)
        .toBe('the fastest that tune found');
    try {
      forcePlan('subgroup');
      expect(planKind('backward_dq', half, MATRICES).kind).toBe('simt');
      forcePlan('decode');
      expect(planKind('backward_dq', half, MATRICES).kind).toBe('matrix');
    } finally {
      forcePlan(undefined);
    }
  });
});

describe('FLASH_ATTENTION_DEBUG=plan', () => {
  const of = problem(512, 300, 8, 2);
  const plan = makePlan('forward', of, STOCK);

  it('says what a plan is and what it is for', () => {
    expect(describePlan(plan, of, 'the reason')).toBe(
        'flashAttention plan: forward simt for B1 Nq512 Nk300 Hq8 Hkv2 D64 Dv64 bnhd: 16x16 threads, ' +
        '64 queries x 64 keys, steps of 4 and 16, 21776 bytes of workgroup memory (the reason)');
    const rows = makePlan('row_statistics', of, STOCK);
    expect(describePlan(rows, of, 'x')).toMatch(/row_statistics simt for .*: 64 threads, 0 bytes .*\(x\)$/);
  });

  it('prints each plan once, and nothing unless it is set', () => {
    const log = spyOn(console, 'log');
    printPlan(plan, of, 'a');
    expect(log).not.toHaveBeenCalled();
    tf.env().set('FLASH_ATTENTION_DEBUG', 'plan');
    try {
      printPlan(plan, of, 'a');
      printPlan(plan, of, 'a');
      printPlan(plan, of, 'b');
      expect(log.calls.allArgs()).toEqual([[describePlan(plan, of, 'a')], [describePlan(plan, of, 'b')]]);
    } finally {
      tf.env().set('FLASH_ATTENTION_DEBUG', '');
    }
  });
});
