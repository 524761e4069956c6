import type {NamedArray} from '../gpt/trainer.js';

/** The longest header that the format's own implementations accept. */
const LONGEST_HEADER = 100_000_000;
const LENGTH_BYTES = 8;

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** float32 tensors and text notes. */
export interface TensorFile {
  readonly arrays: readonly NamedArray[];
  readonly metadata: Readonly<Record<string, string>>;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((size, n) => size * n, 1);

/** The contents of a .safetensors file (https://github.com/huggingface/safetensors): 8 bytes of length, JSON, data. */
export function encodeSafetensors({arrays, metadata}: TensorFile): Buffer {
  const header: Record<string, Entry|Record<string, string>> = {__metadata__: {...metadata}};
  let end = 0;
  for (const {name, shape, data} of arrays) {
    header[name] = {dtype: 'F32', shape: [...shape], data_offsets: [end, end += data.byteLength]};
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([json, Buffer.alloc((8 - json.length % 8) % 8, ' ')]);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([
    length, padded,
    ...arrays.map(({data}) => Buffer.from(data.buffer, data.byteOffset, data.byteLength)),
  ]);
}

/** @throws when the bytes are not such a file, or hold anything but float32. */
export function decodeSafetensors(bytes: Buffer): TensorFile {
  if (bytes.length < LENGTH_BYTES) {
    throw new Error('it is too short');
  }
  const headerLength = Number(bytes.readBigUInt64LE());
  const dataStart = LENGTH_BYTES + headerLength;
  if (headerLength > LONGEST_HEADER || dataStart > bytes.length) {
    throw new Error('it is cut short or not a safetensors file');
  }
  let header: Record<string, Entry>;
  try {
    header = JSON.parse(bytes.toString('utf8', LENGTH_BYTES, dataStart)) as Record<string, Entry>;
  } catch {
    throw new Error('its header is not JSON');
  }
  const {__metadata__: metadata = {}, ...entries} = header;
  const arrays = Object.entries(entries).map(([name, {dtype, shape, data_offsets: offsets}]): NamedArray => {
    const [start, end] = offsets ?? [];
    if (dtype !== 'F32' || end - start !== 4 * sizeOf(shape) || dataStart + end > bytes.length) {
      throw new Error(`it is cut short or damaged at ${name}`);
    }
    const copy = Uint8Array.prototype.slice.call(bytes, dataStart + start, dataStart + end);
    return {name, shape, data: new Float32Array(copy.buffer)};
  });
  return {arrays, metadata: metadata as unknown as Record<string, string>};
}
