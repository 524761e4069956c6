/** Small seeded generators (mulberry32 and Box–Muller), so that a case means the same numbers everywhere. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    this.state = (this.state + 0x6D2B79F5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  integer(below: number): number {
    return Math.floor(this.uniform() * below);
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Multiples of 1/64 from −2 to 2, which other languages draw alike (scripts/make_torch_goldens.py). */
  sixtyFourths(length: number): Float32Array {
    return Float32Array.from({length}, () => (this.integer(256) - 128) / 64);
  }

  normals(length: number, scale = 1): Float32Array {
    const values = new Float32Array(length);
    for (let i = 0; i < length; i++) {
      values[i] = this.normal() * scale;
    }
    return values;
  }
}
