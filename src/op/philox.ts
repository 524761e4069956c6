/**
 * Philox4x32-10, the counter-based generator behind dropout (Salmon et al., "Parallel random numbers: as easy
 * as 1, 2, 3", SC 2011; the same in cuRAND and PyTorch). The softmax weight of batch b, head h, query i, key j
 * uses word j mod 4 of the block with counter (⌊j/4⌋, i, h, b), keyed by the seed's low and high 32 bits.
 */

const MULTIPLIER_0 = 0xD2511F53;
const MULTIPLIER_1 = 0xCD9E8D57;
const WEYL_0 = 0x9E3779B9;
const WEYL_1 = 0xBB67AE85;
const ROUNDS = 10;

export type Words4 = [number, number, number, number];

/** High 32 bits of the product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const cross = a1 * b0 + ((a0 * b0) >>> 16);
  const middle = a0 * b1 + (cross & 0xffff);
  return (a1 * b1 + Math.floor(cross / 65536) + Math.floor(middle / 65536)) >>> 0;
}

/** One block: four unsigned 32-bit words. */
export function philox4x32(counter: Readonly<Words4>, key: readonly [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The seed as the generator's two key words. */
export function philoxKey(seed: number): [number, number] {
  return [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
}

/** A weight is dropped when its word is below this: the share dropped is p to within 2⁻³². */
export function dropoutThreshold(dropoutP: number): number {
  return Math.min(Math.round(dropoutP * 2 ** 32), 2 ** 32 - 1);
}
