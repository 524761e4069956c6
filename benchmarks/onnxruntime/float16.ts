/** Bits of the float16 numbers nearest to float32 numbers, ties to even. Below the least normal one they become 0. */
export function toFloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const result = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let n = 0; n < values.length; n++) {
    const exponent = (bits[n] >>> 23 & 0xff) - 112;
    const fraction = bits[n] & 0x7fffff;
    const rounded = (exponent << 10) + (fraction + 0xfff + (fraction >>> 13 & 1) >>> 13);
    result[n] = bits[n] >>> 16 & 0x8000 | (exponent <= 0 ? 0 : Math.min(rounded, 0x7c00));
  }
  return result;
}

/** The number that float16 bits stand for. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = bits >>> 10 & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) {
    return fraction === 0 ? sign * Infinity : NaN;
  }
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
