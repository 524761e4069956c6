import * as tf from '@tensorflow/tfjs';

import {stockCapabilities} from '../../src/backends/webgpu/capabilities.js';
import type {Capabilities, DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {choosePlan, explainChoice, forcePlan, planKind} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {describePlan, printPlan} from '../../src/backends/webgpu/debug.js';
import {makePlan} from '../../src/backends/webgpu/plan.js';
import type {KernelName} from '../../src/backends/webgpu/plan.js';
import {makeProblem} from '../../src/op/problem.js';
import type {Problem} from '../../src/op/problem.js';

const LIMITS = {
  maxComputeWorkgroupStorageSize: 32768, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024,
} as DeviceLimits;
const STOCK = stockCapabilities(LIMITS);
const SUBGROUPS: Capabilities = {...STOCK, subgroups: {min: 4, max: 128}};

function problem(queryLength: number, keyLength: number, queryHeads = 8, keyHeads = 8): Problem {
  const keys = {shape: [1, keyLength, keyHeads, 64]};
  return makeProblem({q: {shape: [1, queryLength, queryHeads, 64]}, k: keys, v: keys}, {
    layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
    dropoutP: 0, seed: 0, computeType: 'float32',
  });
}

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
