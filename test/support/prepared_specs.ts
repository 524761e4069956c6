import * as tf from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {keptSizes} from '../../src/backends/webgpu/device.js';
import {prepare} from '../../src/index.js';
import type {ComputeType} from '../../src/index.js';

import {Compiles} from './compiles.js';
import {onFreshDevice, runs} from './fresh_device.js';
import type {PreparedCall} from './prepared_calls.js';
import {SLOW_MS} from './specs.js';

interface Preparing {
  /** A kind of plan that is forced; default: as chosen. */
  readonly kind?: PlanKind;
  /** Default false: on a device as tfjs asks for. */
  readonly full?: boolean;
  readonly computeType?: ComputeType;
  /** Kernels that there must be pipelines of, named once for each. */
  readonly kernels?: readonly string[];
}

/** One spec for each call: what `prepare` compiled in the background is all that the call and its gradients need. */
export function specPrepared(
    calls: readonly PreparedCall[], {kind, full, computeType, kernels = []}: Preparing = {}): void {
  const precision = computeType ? {computeType} : {};
  const countOf = (name: string, list: readonly string[]) => list.filter(other => other === name).length;

  for (const {what, shapes, options, prepare: wanted, call} of calls) {
    it(`compiles all that it takes for ${what}, in the background, once`, async () => {
      const ready = () => prepare(shapes, {...options, ...precision}, wanted);
      await onFreshDevice(async device => {
        forcePlan(kind);
        const compiles = new Compiles(device);
        const before = tf.memory();
        await Promise.all([ready(), ready()]);
        const {modules, now, inBackground} = compiles;
        expect(inBackground).toBeGreaterThan(0);
        expect({modules, now}).toEqual({modules: inBackground, now: 0});
        expect(keptSizes(device)).toEqual(jasmine.objectContaining({pipelines: inBackground, compiling: 0}));
        for (const name of new Set(kernels)) {
          expect(countOf(name, compiles.kernels)).withContext(name).toBeGreaterThanOrEqual(countOf(name, kernels));
        }
        expect(tf.memory()).toEqual(before);
        for (const values of await runs(() => call(precision))) {
          expect(values.every(Number.isFinite)).toBe(true);
        }
        await ready();
        expect({modules: compiles.modules, now: compiles.now}).toEqual({modules: inBackground, now: 0});
        expect(keptSizes(device).pipelines).toBe(inBackground);
        compiles.stop();
      }, {full});
    }, SLOW_MS);
  }

  afterEach(() => forcePlan(undefined));
}
