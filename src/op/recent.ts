/**
 * Values by key: those of the `most` keys used last at least, of twice as many at most. Finding one costs a single
 * look-up, where moving it to the end of a list would cost three.
 */
export class Recent<Key, Value extends NonNullable<unknown>> {
  private young = new Map<Key, Value>();
  private old = new Map<Key, Value>();

  constructor(private readonly most: number) {}

  /** How many there are, some perhaps counted twice. */
  get size(): number {
    return this.young.size + this.old.size;
  }

  /** The value of the key, made where there is none. Nothing changes when `make` throws. */
  get(key: Key, make: () => Value): Value {
    const found = this.young.get(key);
    if (found !== undefined) {
      return found;
    }
    const value = this.old.get(key) ?? make();
    this.young.set(key, value);
    if (this.young.size >= this.most) {
      this.old = this.young;
      this.young = new Map();
    }
    return value;
  }
}
