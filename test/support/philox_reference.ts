/** Philox4x32-10 in BigInt, straight from the paper's definition; slow, and independent of src/op/philox. */
export function philox4x32(counter: readonly number[], seed: number): number[] {
  const mask = 0xFFFFFFFFn;
  let c = counter.map(BigInt);
  let k0 = BigInt(seed) & mask;
  let k1 = BigInt(seed) >> 32n;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xD2511F53n * c[0];
    const p1 = 0xCD9E8D57n * c[2];
    c = [(p1 >> 32n) ^ c[1] ^ k0, p1 & mask, (p0 >> 32n) ^ c[3] ^ k1, p0 & mask];
    k0 = (k0 + 0x9E3779B9n) & mask;
    k1 = (k1 + 0xBB67AE85n) & mask;
  }
  return c.map(Number);
}
