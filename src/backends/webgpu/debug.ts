import {env} from '@tensorflow/tfjs-core';

import type {Problem} from '../../op/problem.js';

import {isTiled} from './kernel_names.js';
import {sizesOf, workgroupBytes} from './plan.js';
import type {Plan} from './plan.js';

/**
 * What to print: `plan`, a line for each plan that is made. Read from the environment in Node, in browsers from the
 * address (`?tfjsflags=FLASH_ATTENTION_DEBUG:plan`); `tf.env().set` changes it.
 */
const FLAG = 'FLASH_ATTENTION_DEBUG';

env().registerFlag(FLAG, () => globalThis.process?.env?.[FLAG] ?? '');

/** A plan and what it is for in one line. */
export function describePlan(plan: Plan, problem: Problem, why: string): string {
  const {batch, queryLength, keyLength, queryHeads, keyHeads, headSize, valueSize, layout} = problem;
  const {threads, blockQueries, blockKeys} = sizesOf(plan);
  const shape = `B${batch} Nq${queryLength} Nk${keyLength} Hq${queryHeads} Hkv${keyHeads} D${headSize} ` +
      `Dv${valueSize} ${layout}`;
  const steps = plan.kind === 'decode' ? `${plan.keysAtOnce} at once` : `steps of ${plan.chunk} and ${plan.rowChunk}`;
  const blocking = isTiled(plan.kernel) ?
      `${plan.threadsX}x${plan.threadsY} threads, ${blockQueries} queries x ${blockKeys} keys, ${steps}` :
      `${threads} threads`;
  return `flashAttention plan: ${plan.kernel} ${plan.kind} for ${shape}: ${blocking}, ` +
      `${workgroupBytes(plan)} bytes of workgroup memory (${why})`;
}

const printed = new Set<string>();

/** Prints a newly made plan if FLASH_ATTENTION_DEBUG asks for it; plans that are made call after call only once. */
export function printPlan(plan: Plan, problem: Problem, why: string): void {
  if (env().get(FLAG) !== 'plan') {
    return;
  }
  const line = describePlan(plan, problem, why);
  if (!printed.has(line)) {
    printed.add(line);
    console.log(line);
  }
}
