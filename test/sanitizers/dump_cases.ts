// node --import tsx test/sanitizers/dump_cases.ts FILE [cases of the grid] [compute type] [seed]: the calls that the
// case table, the variants and as many cases of the grid make of the native kernels, with what they should give, for
// runner.cc, fuzz_description.cc and test/cuda. Other compute types allow other errors; other seeds draw other numbers.
import {closeSync, mkdirSync, openSync, writeSync} from 'node:fs';
import {dirname} from 'node:path';

import * as tf from '@tensorflow/tfjs';

import {NATIVE_ORDER} from '../../src/backends/native/description.js';
import {gridSample} from '../support/case_grid.js';
import {caseInputs, caseTable} from '../support/cases.js';
import type {Case} from '../support/cases.js';
import {compare, FLOORS} from '../support/error_budget.js';
import type {ResultName} from '../support/reference.js';
import {attentionOf, referencesOf} from '../support/run_case.js';
import type {JudgedType} from '../support/run_case.js';

import {captureCalls} from './captured_calls.js';
import type {CapturedCall, CapturedTensor} from './captured_calls.js';
import {VARIANT_CALLS} from './variant_calls.js';

/** What a result should be; `tolerance` for each element. */
interface Expected {
  name: number;
  values: ArrayLike<number>;
  specials: Specials;
  tolerance: number;
}

/** As runner.cc numbers them. */
enum Specials {EXACT, FINITE, NOT_COMPARED}

/**
 * Float32 results of the same sums in another order, relative to the largest: test/support/variant_specs. Of operands
 * that are rounded, a few of their roundings.
 */
const VARIANT_TOLERANCES = {float32: 2e-5, tensorfloat32: 2 ** -8, float16: 2 ** -8, bfloat16: 2 ** -5};

const LSE_TAIL = NATIVE_ORDER.indexOf('lseTail');

const RESULT_NAMES: Partial<Record<string, ResultName>> =
    {output: 'output', lse: 'lse', q: 'dQ', k: 'dK', v: 'dV', bias: 'dBias'};

/** By the float64 reference and the error budget. */
function judgedByReference(c: Case, {kind, results}: CapturedCall): Expected[] {
  const {reference, plain} = referencesOf(c, caseInputs(c), computeType);
  return results.map(({name, values}) => {
    const result = RESULT_NAMES[NATIVE_ORDER[name]];
    if (result === undefined) {
      return {name, values, specials: Specials.NOT_COMPARED, tolerance: 0};
    }
    const specials = kind === 'forward' ? 'exact' : 'finite';
    const {allowed, ok, message} = compare(result, values, reference[result]!, plain[result]!,
        reference.magnitude![result], specials, FLOORS[computeType]);
    if (!ok) {
      throw new Error(`${c.name}: the TypeScript kernel itself fails: ${message}`);
    }
    return {
      name, values: reference[result]!, specials: kind === 'forward' ? Specials.EXACT : Specials.FINITE,
      tolerance: allowed,
    };
  });
}

/** By the TypeScript kernel, which is judged elsewhere. */
function judgedByHost({kind, results}: CapturedCall): Expected[] {
  return results.map(({name, values}) => {
    const sizes = Array.from(values, Math.abs);
    const largest = sizes.reduce((most, size) => Number.isFinite(size) ? Math.max(most, size) : most, 1);
    const isCompared = name !== LSE_TAIL;
    return {
      name, values, specials: isCompared ? Specials.EXACT : Specials.NOT_COMPARED,
      tolerance: kind === 'append' ? 0 : VARIANT_TOLERANCES[computeType] * largest,
    };
  });
}

/** Everything in units of 8 bytes, so that the reader can use it where it lies. */
class Writer {
  private readonly file: number;

  constructor(path: string) {
    mkdirSync(dirname(path), {recursive: true});
    this.file = openSync(path, 'w');
    writeSync(this.file, 'FACALLS1');
  }

  private bytes(values: Uint8Array) {
    writeSync(this.file, values);
    writeSync(this.file, new Uint8Array(-values.length & 7));
  }

  private integers(...values: number[]) {
    this.bytes(new Uint8Array(BigInt64Array.from(values, BigInt).buffer));
  }

  private doubles(values: ArrayLike<number>) {
    this.bytes(new Uint8Array(Float64Array.from(values).buffer));
  }

  private tensor({name, values}: CapturedTensor) {
    this.integers(name, values.length, values.BYTES_PER_ELEMENT);
    this.bytes(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  call(name: string, {description, tensors}: CapturedCall, expected: Expected[]) {
    const text = new TextEncoder().encode(name);
    this.integers(text.length);
    this.bytes(text);
    this.integers(description.length);
    this.doubles(description);
    this.integers(tensors.length);
    tensors.forEach(tensor => this.tensor(tensor));
    this.integers(expected.length);
    for (const {name: result, values, specials, tolerance} of expected) {
      this.integers(result, values.length, specials);
      this.doubles([tolerance]);
      this.doubles(specials === Specials.NOT_COMPARED ? [] : values);
    }
  }

  close() {
    closeSync(this.file);
  }
}

const [path, ofGrid = '0', type = 'float32', seed = '0'] = process.argv.slice(2);
if (!Object.hasOwn(FLOORS, type)) {
  throw new Error(`expected one of ${Object.keys(FLOORS).join(', ')} for the compute type, received ${type}`);
}
const computeType = type as JudgedType;
const writer = new Writer(path);
let count = 0;

function write(name: string, calls: CapturedCall[], judge: (call: CapturedCall) => Expected[]) {
  for (const call of calls) {
    writer.call(`${name}, ${call.kind}`, call, judge(call));
    count++;
  }
}

const cases = [...caseTable(Number(seed)), ...Number(ofGrid) > 0 ? gridSample(Number(ofGrid), 1.2e9) : []];
for (const c of cases) {
  const calls = await captureCalls(() => attentionOf(c, caseInputs(c)));
  write(c.name, calls, call => judgedByReference(c, call));
}
for (const [name, f] of Object.entries(VARIANT_CALLS)) {
  const calls = await captureCalls(() => {
    tf.engine().startScope();
    try {
      f();
    } finally {
      tf.engine().endScope();
    }
  });
  if (calls.length === 0) {
    throw new Error(`${name}: no call`);
  }
  write(name, calls, judgedByHost);
}
writer.close();
console.log(`${count} calls of ${cases.length} cases and ${Object.keys(VARIANT_CALLS).length} variants in ` +
    `${computeType}, seed ${seed}, in ${path}`);
