import {message} from './protobuf.js';

/** Precision of inputs, arithmetic and output of a model. */
export type ModelType = 'float32'|'float16';

/** A row of attention nodes. */
export interface AttentionModel {
  batch: number;
  heads: number;
  length: number;
  headSize: number;
  /** With a causal mask, which only `com.microsoft.GroupQueryAttention` has on WebGPU, else `MultiHeadAttention`. */
  causal: boolean;
  type: ModelType;
  /** Nodes: the output of one is the query of the next, over the same keys and values. */
  nodes: number;
  /** Gives all rows, or, so that reading them back costs nothing, the last row of each sequence. Default false. */
  lastRowOnly?: boolean;
}

// Numbers of fields and enumerations as in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
const FLOAT = 1;
const INT32 = 6;
const INT64 = 7;
const FLOAT16 = 10;
const INT_ATTRIBUTE = 2;
const [IR_VERSION, OPSET, CONTRIB_OPSET] = [8, 17, 1];

const integer = (name: string, value: number) => message([1, name], [3, value], [20, INT_ATTRIBUTE]);

const valueInfo = (name: string, type: number, shape: readonly number[]) => message(
    [1, name], [2, message([1, message([1, type], [2, message([1, shape.map(size => message([1, size]))])])])]);

function constant(name: string, type: number, shape: readonly number[], values: Int32Array|BigInt64Array): Uint8Array {
  const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return message([1, shape], [2, type], [8, name], [9, raw]);
}

const int64 = (...values: number[]) => BigInt64Array.from(values, BigInt);

/**
 * An ONNX model, q, k, v [B,N,H·D] → output [B,N,H·D] ([B,1,H·D] with `lastRowOnly`), of `nodes` attentions in a row.
 * Written by hand, so that the benchmark needs neither Python nor a package for it.
 */
export function attentionModel(model: AttentionModel): Uint8Array {
  const {batch, heads, length, headSize, causal, type, nodes, lastRowOnly = false} = model;
  const element = type === 'float16' ? FLOAT16 : FLOAT;
  const shape = [batch, length, heads * headSize];
  const outputOf = (n: number) => n === 0 ? 'q' : n === nodes && !lastRowOnly ? 'output' : `attended_${n}`;
  const attention = (n: number): Uint8Array => causal ?
      message([1, [outputOf(n), 'k', 'v', '', '', 'last_key', 'keys']], [2, outputOf(n + 1)],
          [4, 'GroupQueryAttention'], [5, [integer('num_heads', heads), integer('kv_num_heads', heads)]],
          [7, 'com.microsoft']) :
      message([1, [outputOf(n), 'k', 'v']], [2, outputOf(n + 1)],
          [4, 'MultiHeadAttention'], [5, integer('num_heads', heads)], [7, 'com.microsoft']);
  const slice = message([1, [outputOf(nodes), 'start', 'end', 'axis']], [2, 'output'], [4, 'Slice']);
  const graph = message(
      [1, [...Array.from({length: nodes}, (_, n) => attention(n)), ...lastRowOnly ? [slice] : []]],
      [2, 'attention'],
      [5, [
        ...causal ? [
          constant('last_key', INT32, [batch], new Int32Array(batch).fill(length - 1)),
          constant('keys', INT32, [1], Int32Array.of(length)),
        ] : [],
        ...lastRowOnly ? [
          constant('start', INT64, [1], int64(length - 1)), constant('end', INT64, [1], int64(length)),
          constant('axis', INT64, [1], int64(1)),
        ] : [],
      ]],
      [11, ['q', 'k', 'v'].map(name => valueInfo(name, element, shape))],
      [12, valueInfo('output', element, lastRowOnly ? [batch, 1, heads * headSize] : shape)]);
  return message(
      [1, IR_VERSION], [2, 'tfjs-flash-attention'], [7, graph],
      [8, [message([1, ''], [2, OPSET]), message([1, 'com.microsoft'], [2, CONTRIB_OPSET])]]);
}
