import {describeCall, NATIVE_ORDER} from '../../src/backends/native/description.js';
import {makeProblem} from '../../src/op/problem.js';

import {addon, rawCall, runRaw} from './raw_call.js';
import type {RawCall} from './raw_call.js';

/** Places of a description by name; the order is that of kernels/addon/description.cc. */
const PLACE = {
  format: 0, kind: 1, present: 2, wanted: 3, batch: 4, queryLength: 5, keyLength: 6, queryRows: 7, keyRows: 8,
  queryHeads: 9, keyHeads: 10, headSize: 11, valueSize: 12, keyBatches: 13, pageSize: 14, pagesPerSequence: 15,
  packedSequences: 16, windowLeft: 17, windowRight: 18, bottomRight: 19, softmaxScale: 20, softcap: 21, dropoutP: 22,
  seedLow: 23, seedHigh: 24, qBatch: 26, kBatch: 30, kRow: 31,
  vHead: 36, outputBase: 37, lseBatch: 41, lseHead: 42, maskKey: 46, biasHead: 48,
  biasShape: 51, alibiBatch: 55, outputRank: 56, outputShape: 57, lseRank: 61, lseShape: 62, deterministic: 65,
  computeType: 66,
};
const SIZE = 67;

const spoilt = (call: RawCall, name: keyof typeof PLACE, value: number): RawCall =>
    ({...call, description: call.description.map((number, n) => n === PLACE[name] ? value : number)});

const plain = (values: Float32Array): number[] => [...values];

const copyOf = ({description, tensors, results}: RawCall): RawCall => ({
  description: description.slice(), tensors: tensors.map(t => t.slice()), results: results.map(r => r.slice()),
});

describe('the addon\'s door', () => {
  for (const kind of ['forward', 'backward'] as const) {
    it(`takes a ${kind} call, and gives the same again`, () => {
      const before = addon().calls()[kind];
      const first = runRaw(copyOf(rawCall(kind)));
      expect(first.flatMap(result => [...result])).not.toContain(NaN);
      expect(first[0].some(value => value !== 0)).toBeTrue();
      expect(runRaw(copyOf(rawCall(kind))).map(plain)).toEqual(first.map(plain));
      expect(addon().calls()[kind]).toBe(before + 2);
    });

    it(`takes shared memory and WebAssembly's for a ${kind} call`, () => {
      const expected = runRaw(rawCall(kind)).map(plain);
      const memory = new WebAssembly.Memory({initial: 4, maximum: 4, shared: true});
      const unshared = new WebAssembly.Memory({initial: 4});
      for (const buffer of [new SharedArrayBuffer(2 ** 18), memory.buffer, unshared.buffer]) {
        let at = 64;
        const inside = <T extends Float32Array|Int32Array|Uint8Array>(values: T): T => {
          const type = values.constructor as new (buffer: ArrayBufferLike, from: number, length: number) => T;
          const view = new type(buffer, at, values.length);
          view.set(values);
          at += Math.ceil(values.byteLength / 8) * 8;
          return view;
        };
        const {description, tensors, results} = rawCall(kind);
        const actual = runRaw({description, tensors: tensors.map(inside), results: results.map(inside)});
        expect(actual.map(plain)).toEqual(expected);
      }
    });

    it(`refuses ${kind} calls whose numbers are spoilt, before it touches any memory`, () => {
      const wrong: Array<[keyof typeof PLACE, number, RegExp]> = [
        ['format', 1, /not one of format 3/], ['kind', 3, /from 0 to 2 for kind/], ['kind', 2, /do not belong to such/],
        ['present', 0, /do not belong|expected q, k and v/], ['present', 2 ** 16, /for present/],
        ['wanted', 2 ** 5, /gradients/], ['batch', -1, /for batch/], ['batch', 1.5, /for batch/],
        ['batch', NaN, /for batch/], ['batch', Infinity, /for batch/], ['batch', 3, /shape of the output/],
        ['queryLength', 6, /queryLength rows/], ['keyLength', 8, /keyLength rows/], ['queryRows', 2 ** 31, /queryRows/],
        ['keyRows', 8, /keyLength rows/], ['queryHeads', 5, /that keyHeads divides/], ['keyHeads', 0, /for keyHeads/],
        ['queryHeads', 2 ** 31 - 2, /heads of all batches/], ['headSize', 257, /for headSize/],
        ['headSize', 9, /overlap/], ['valueSize', 0, /for valueSize/], ['keyBatches', 0, /batches of k/],
        ['keyBatches', 3, /elements or more for k/], ['pageSize', 7, /block table/],
        ['pagesPerSequence', 1, /block table/],
        ['packedSequences', 1, /end to end/], ['packedSequences', 2, /packedSequences/],
        ['windowLeft', -2, /windowLeft/],
        ['windowRight', 2 ** 31, /windowRight/], ['bottomRight', 0.5, /bottomRight/],
        ['softmaxScale', NaN, /softmaxScale/],
        ['softcap', -1, /softcap/], ['softcap', Infinity, /softcap/], ['dropoutP', 1, /dropoutP/],
        ['seedLow', 2 ** 32, /seedLow/], ['seedHigh', -1, /seedHigh/], ['qBatch', 159, /strides of q/],
        ['qBatch', 2 ** 53, /elements/], ['qBatch', 161, /elements or more for q/], ['kRow', 15, /strides of k/],
        ['kBatch', 113, /elements or more for k/], ['vHead', 5, /strides of v/], ['vHead', 2 ** 60, /strides of v/],
        ['outputBase', 1, /shape of the output/], ['lseBatch', 19, /LSE/], ['lseHead', 2 ** 53, /LSE/],
        ['maskKey', 2, /elements or more for mask/], ['biasHead', 34, /strides of bias/], ['biasShape', 2, /bias/],
        ['alibiBatch', 4, /expected 8 elements for alibiSlopes/], ['alibiBatch', 3, /alibiBatch/],
        ['outputRank', 5, /rank of the output/], ['outputShape', 1, /shape of the output/],
        ['lseRank', 1, /rank of the LSE/], ['lseShape', 1, /the LSE/],
        ['computeType', 4, /from 0 to 3 for computeType/], ['deterministic', 2, /from 0 to 1 for deterministic/],
      ];
      const call = rawCall(kind);
      call.results.forEach(result => result.fill(7));
      for (const [name, value, message] of wrong) {
        expect(() => runRaw(spoilt(call, name, value))).withContext(`${name} = ${value}`).toThrowError(message);
        expect(() => runRaw(spoilt(call, name, value))).toThrowError(/^flashAttention: /);
      }
      call.results.forEach(result => expect(result.every(value => value === 7)).toBeTrue());
    });

    it(`survives every number of a ${kind} call being any of these`, () => {
      const call = rawCall(kind);
      let refused = 0;
      for (let place = 0; place < SIZE; place++) {
        for (const value of [NaN, -Infinity, -1, 0, 1, 2, 3.5, 255, 2 ** 31 - 1, 2 ** 32, 2 ** 53, 1e308]) {
          const description = call.description.map((number, n) => n === place ? value : number);
          try {
            runRaw({...call, description});
          } catch (error) {
            refused++;
            expect((error as Error).message).toMatch(/^flashAttention: .+/);
          }
        }
      }
      expect(refused).toBeGreaterThan(0.6 * SIZE * 12);
    });

    it(`refuses arrays that do not fit a ${kind} call`, () => {
      const call = rawCall(kind);
      const {tensors, results} = call;
      const replaced = <T>(list: readonly T[], place: number, value: unknown): T[] =>
          list.map((entry, n) => n === place ? value as T : entry);
      const names = NATIVE_ORDER.filter((_, bit) => call.description[PLACE.present] & 2 ** bit);
      tensors.forEach((tensor, n) => {
        expect(() => runRaw({...call, tensors: replaced(tensors, n, tensor.slice(1))}))
            .toThrowError(new RegExp(`^flashAttention: expected \\d+ elements.* for ${names[n]}, received \\d+$`));
        for (const other of [new Float64Array(999), new Int8Array(999), [1, 2], null, undefined, {}, 'text']) {
          expect(() => runRaw({...call, tensors: replaced(tensors, n, other)}))
              .toThrowError(new RegExp(`^flashAttention: expected an? \\w+Array for ${names[n]}$`));
        }
      });
      results.forEach((result, n) => {
        for (const other of [result.slice(1), new Int32Array(result.length), undefined]) {
          expect(() => runRaw({...call, results: replaced(results, n, other)}))
              .toThrowError(new RegExp(`^flashAttention: expected a Float32Array of \\d+ elements for result ${n}$`));
        }
      });
      expect(() => runRaw({...call, tensors: tensors.slice(1)})).toThrowError(/expected \d+ tensors, received \d+/);
      expect(() => runRaw({...call, results: results.slice(1)})).toThrowError(/expected \d results, received \d/);
      const overlapping = results[0].length <= tensors[0].length ?
          new Float32Array(tensors[0].buffer, tensors[0].byteOffset, results[0].length) : results[0];
      expect(() => runRaw({...call, results: replaced(results, 0, overlapping)})).toThrowError(/memory of its own/);
    });

    it(`refuses a detached buffer in a ${kind} call`, () => {
      const call = rawCall(kind);
      structuredClone(call.tensors[0].buffer, {transfer: [call.tensors[0].buffer as ArrayBuffer]});
      expect(() => runRaw(call)).toThrowError(/elements or more for q, received 0/);
    });
  }

  it('refuses what is no call at all', () => {
    const {run, append} = addon() as unknown as Record<string, (...args: unknown[]) => void>;
    const [doubles, floats] = [new Float64Array(SIZE), new Float32Array(SIZE)];
    for (const args of [[], [1], [doubles], [floats, [], []], [doubles, {}, {}], [doubles, [], []]]) {
      expect(() => run(...args)).toThrowError(/^flashAttention: /);
      expect(() => append(...args)).toThrowError(/^flashAttention: /);
    }
  });

  it('carries the whole seed', () => {
    const options = {dropoutP: 0.5};
    const call = rawCall('forward', options);
    expect([call.description[PLACE.seedLow], call.description[PLACE.seedHigh]]).toEqual([3, 256]);
    const one = runRaw(copyOf(call)).map(plain);
    for (const [name, value] of [['seedLow', 4], ['seedHigh', 257]] as const) {
      expect(runRaw(spoilt(copyOf(call), name, value)).map(plain)).not.toEqual(one);
    }
  });

  it('keeps gradients of packed tensors apart', () => {
    const qkv = {shape: [1, 4, 3, 2, 8]};
    const problem = makeProblem({qkv}, {
      layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
      dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
    });
    const description = describeCall({kind: 'forward', problem, seed: 0, names: ['qkv'], pagesPerSequence: 0});
    const call = {
      description, tensors: [new Float32Array(192)], results: [64, 8, 8].map(length => new Float32Array(length)),
    };
    runRaw(call);
    const moved = description.slice();
    moved[29] = moved[25]; // k begins where q does
    expect(() => runRaw({...call, description: moved})).toThrowError('flashAttention: the parts of a packed tensor ' +
        'overlap in the description');
  });
});
