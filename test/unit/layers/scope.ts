import * as tf from '@tensorflow/tfjs';

/**
 * Runs each spec of a suite on one backend, in a scope of its own, and disposes the variables that it made (and
 * no other suite's). What is left then is a leak, and fails.
 */
export function scopeEachSpec(backend: 'cpu'|'wasm' = 'cpu'): void {
  let tensors: number;
  let names: Set<string>;
  const variables = () => tf.engine().registeredVariables;

  beforeAll(async () => {
    expect(await tf.setBackend(backend)).toBeTrue();
  });
  beforeEach(() => {
    tensors = tf.memory().numTensors;
    names = new Set(Object.keys(variables()));
    tf.engine().startScope();
  });
  afterEach(() => {
    tf.engine().endScope();
    Object.entries(variables()).filter(([name]) => !names.has(name)).forEach(([, variable]) => variable.dispose());
    expect(tf.memory().numTensors).withContext('tensors left over').toBe(tensors);
  });
}
