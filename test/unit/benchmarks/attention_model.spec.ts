import {attentionModel} from '../../../benchmarks/onnxruntime/attention_model.js';
import type {AttentionModel} from '../../../benchmarks/onnxruntime/attention_model.js';
import {fromFloat16, toFloat16} from '../../../benchmarks/onnxruntime/float16.js';

/** Fields of a message by number, as https://protobuf.dev/programming-guides/encoding says: numbers, or bytes. */
type Message = Map<number, Array<number|Uint8Array>>;

function decode(bytes: Uint8Array): Message {
  const message: Message = new Map();
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        return value;
      }
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const length = varint();
    const isBytes = (tag & 7) === 2;
    expect([0, 2]).toContain(tag & 7);
    message.set(tag >> 3, [...message.get(tag >> 3) ?? [], isBytes ? bytes.subarray(at, at + length) : length]);
    at += isBytes ? length : 0;
  }
  expect(at).toBe(bytes.length);
  return message;
}

const within = (message: Message, field: number) => (message.get(field) ?? []).map(
    bytes => decode(bytes as Uint8Array));
const texts = (message: Message, field: number) => (message.get(field) ?? []).map(
    bytes => new TextDecoder().decode(bytes as Uint8Array));

const SHAPE: AttentionModel =
    {batch: 2, heads: 3, length: 300, headSize: 64, causal: false, type: 'float16', nodes: 3};

function graphOf(model: AttentionModel): Message {
  return within(decode(attentionModel(model)), 7)[0];
}

/** Type and shape of inputs or outputs. */
function valuesOf(graph: Message, field: number) {
  return within(graph, field).map(value => {
    const [tensor] = within(within(value, 2)[0], 1);
    const dimensions = within(within(tensor, 2)[0], 1).map(dimension => dimension.get(1)![0]);
    return {name: texts(value, 1)[0], type: tensor.get(1)![0], dimensions};
  });
}

describe('the ONNX model of attention', () => {
  it('has nodes in a row over the same keys and values', () => {
    const graph = graphOf(SHAPE);
    expect(within(graph, 1).map(node => [texts(node, 4)[0], texts(node, 1).join(), texts(node, 2).join()])).toEqual([
      ['MultiHeadAttention', 'q,k,v', 'attended_1'], ['MultiHeadAttention', 'attended_1,k,v', 'attended_2'],
      ['MultiHeadAttention', 'attended_2,k,v', 'output'],
    ]);
    for (const node of within(graph, 1)) {
      expect(texts(node, 7)).toEqual(['com.microsoft']);
      const [heads] = within(node, 5);
      expect([texts(heads, 1)[0], heads.get(3), heads.get(20)]).toEqual(['num_heads', [3], [2]]);
    }
    expect(valuesOf(graph, 11)).toEqual(['q', 'k', 'v'].map(name => ({name, type: 10, dimensions: [2, 300, 192]})));
    expect(valuesOf(graph, 12)).toEqual([{name: 'output', type: 10, dimensions: [2, 300, 192]}]);
  });

  it('gives the last row alone if asked', () => {
    const graph = graphOf({...SHAPE, type: 'float32', nodes: 1, lastRowOnly: true});
    expect(within(graph, 1).map(node => [texts(node, 4)[0], texts(node, 1).join(), texts(node, 2).join()])).toEqual([
      ['MultiHeadAttention', 'q,k,v', 'attended_1'], ['Slice', 'attended_1,start,end,axis', 'output'],
    ]);
    expect(valuesOf(graph, 12)).toEqual([{name: 'output', type: 1, dimensions: [2, 1, 192]}]);
    const constants = within(graph, 5).map(constant => {
      const raw = constant.get(9)![0] as Uint8Array;
      return [texts(constant, 8)[0], Number(new DataView(raw.buffer, raw.byteOffset).getBigInt64(0, true))];
    });
    expect(constants).toEqual([['start', 299], ['end', 300], ['axis', 1]]);
  });

  it('has grouped-query attention under a causal mask, which needs the lengths', () => {
    const graph = graphOf({...SHAPE, causal: true, nodes: 1});
    const [node] = within(graph, 1);
    expect([texts(node, 4)[0], texts(node, 1)]).toEqual(
        ['GroupQueryAttention', ['q', 'k', 'v', '', '', 'last_key', 'keys']]);
    const constants = within(graph, 5).map(constant => {
      const raw = constant.get(9)![0] as Uint8Array;
      return [texts(constant, 8)[0], [...new Int32Array(raw.slice().buffer)]];
    });
    expect(constants).toEqual([['last_key', [299, 299]], ['keys', [300]]]);
  });
});

describe('float16', () => {
  it('rounds to the nearest, ties to even', () => {
    const cases: Array<[number, number]> = [
      [1, 1], [-1.5, -1.5], [0.1, 0.0999755859375], [1 + 2 ** -11, 1], [1 + 3 * 2 ** -11, 1 + 2 ** -9], [65504, 65504],
      [65520, Infinity], [1e9, Infinity], [-1e9, -Infinity], [2 ** -14, 2 ** -14], [1e-8, 0], [0, 0],
      [2047.75, 2048],
    ];
    const bits = toFloat16(Float32Array.from(cases, ([value]) => value));
    expect([...bits].map(fromFloat16)).toEqual(cases.map(([, rounded]) => rounded));
  });

  it('comes back as it was', () => {
    for (let bits = 0x0400; bits < 0x7c00; bits += 7) {
      expect(toFloat16(Float32Array.of(fromFloat16(bits)))[0]).toBe(bits);
    }
    expect(fromFloat16(1)).toBe(2 ** -24);
    expect(fromFloat16(0x7c01)).toBeNaN();
  });
});
