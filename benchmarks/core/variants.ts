import {forcePlan, PLAN_KINDS} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import type {ComputeType} from '../../src/index.js';

/** One way in which flashAttention is asked to compute. */
export interface Variant {
  /** Its name in results and plots. */
  label: string;
  /** What the call allows; the plan follows from it and the device. */
  computeType: ComputeType;
  /** A plan to force instead of the one that would be chosen. */
  plan?: PlanKind;
}

const COMPUTE_TYPES: readonly ComputeType[] = ['float32', 'tensorfloat32', 'float16', 'bfloat16'];

/** `float16`, or with a plan to force `matrix:float16`. @throws when it is neither. */
export function parseVariant(label: string): Variant {
  const [computeType, plan] = label.split(':').reverse();
  if (!COMPUTE_TYPES.includes(computeType as ComputeType)) {
    throw new Error(`expected ${COMPUTE_TYPES.join(', ')} or plan:computeType for a variant, received ${label}`);
  }
  if (plan !== undefined && !PLAN_KINDS.includes(plan as PlanKind)) {
    throw new Error(`expected ${PLAN_KINDS.join(', ')} for the plan of a variant, received ${label}`);
  }
  return {label, computeType: computeType as ComputeType, plan: plan as PlanKind|undefined};
}

/**
 * Runs `f` with the variant's plan forced. The one place of the benchmarks that forces a plan.
 */
export async function withVariant<T>({plan}: Variant, f: () => Promise<T>): Promise<T> {
  forcePlan(plan);
  try {
    return await f();
  } finally {
    forcePlan(undefined);
  }
}

/** What a kernel's error may be, relative to the largest value: above, what is timed is not attention. */
export function tolerance({computeType}: Pick<Variant, 'computeType'>): number {
  return computeType === 'float32' ? 1e-4 : 1e-2;
}
