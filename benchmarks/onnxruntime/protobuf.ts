/** The two wire types of Protocol Buffers (https://protobuf.dev/programming-guides/encoding) that ONNX models need here. */
const VARINT = 0;
const BYTES = 2;

/** What a field holds: whole numbers ≥ 0, text, the bytes of a message or of data, or several of them. */
type Value = number|string|Uint8Array;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push(rest % 128 + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

function field(number: number, value: Value): Uint8Array[] {
  if (typeof value === 'number') {
    return [Uint8Array.from([...varint(number * 8 + VARINT), ...varint(value)])];
  }
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  return [Uint8Array.from([...varint(number * 8 + BYTES), ...varint(bytes.length)]), bytes];
}

/** A message of [field number, value or values] in this order. */
export function message(...fields: Array<readonly [number, Value|readonly Value[]]>): Uint8Array {
  const parts = fields.flatMap(([number, values]) =>
      (Array.isArray(values) ? values as readonly Value[] : [values as Value]).flatMap(value => field(number, value)));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
