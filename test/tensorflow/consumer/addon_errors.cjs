// What goes wrong between tfjs-node and the addon comes back as an exception, and the process goes on.
const assert = require('node:assert/strict');

const tf = require('@tensorflow/tfjs-node');
const {flashAttention, nativeReport} = require('tfjs-flash-attention/node');

const backend = tf.backend();
const x = tf.randomNormal([1, 6, 2, 8]);
const attend = () => tf.tidy(() => flashAttention(x, x, x).dataSync());
const expected = attend();

/** Runs the op itself: on numbers that the package would not send. */
function execute(description, floats, outputs = 3, name = 'TfjsFlashAttention3') {
  const words = new Int32Array(Float64Array.from(description).buffer);
  const attributes = Object.entries({I: 0, M: 0, F: floats.length, ...name.endsWith('Grad') && {G: outputs}})
      .map(([key, value]) => ({name: key, type: backend.binding.TF_ATTR_INT, value}));
  return tf.tidy(() =>
    backend.executeMultipleOutputs(name, attributes, [tf.tensor1d(words, 'int32'), ...floats], outputs));
}

/** The numbers that the package sends for `attend`. */
function descriptionOf() {
  const original = backend.executeMultipleOutputs;
  let numbers;
  backend.executeMultipleOutputs = (name, attributes, inputs, outputs) => {
    numbers = [...new Float64Array(Int32Array.from(backend.readSync(inputs[0].dataId)).buffer)];
    return original.call(backend, name, attributes, inputs, outputs);
  };
  attend();
  delete backend.executeMultipleOutputs;
  return numbers;
}

const good = descriptionOf();
const withNumber = (place, value) => good.map((number, n) => n === place ? value : number);
const before = {tensors: tf.memory().numTensors, handles: backend.binding.getNumOfTensors()};

const BAD = [
  [[], [x, x, x], /flashAttention: the description of the call has another length/],
  [withNumber(0, 99), [x, x, x], /flashAttention: the description of the call is not one of format 3/],
  [withNumber(5, 1e6), [x, x, x], /flashAttention: expected queryLength rows of q/],
  [withNumber(4, NaN), [x, x, x], /flashAttention: expected an integer from 0 to 2147483647 for batch/],
  [good, [x, x], /flashAttention: the description is that of another call/],
  [good, [x, x, tf.slice(x, [0, 0, 0, 0], [1, 5, 2, 8])],
    /flashAttention: expected 96 elements or more for v, received 80/],
];
for (const [description, floats, message] of BAD) {
  assert.throws(() => execute(description, floats), {message});
}
assert.throws(() => execute(good, [x, x, x], 1, 'TfjsFlashAttention3Grad'), {message: /too few outputs/});
assert.throws(() => execute(good, [x, x, x], 0, 'TfjsFlashAttention3CacheAppend'), {message: /another call/});
assert.deepEqual(tf.memory().numTensors, before.tensors + 1); // the slice
assert.deepEqual(backend.binding.getNumOfTensors(), before.handles + 1);

// The package hands on its own words, without tfjs-node's.
const {executeMultipleOutputs} = backend;
backend.executeMultipleOutputs = (name, attributes, [description, ...rest], outputs) =>
  executeMultipleOutputs.call(backend, name, attributes, [description, ...rest.slice(1), tf.scalar(1)], outputs);
assert.throws(attend, ({message}) => /^flashAttention: expected 96 elements or more for v, received 1$/.test(message));
delete backend.executeMultipleOutputs;

assert.deepEqual(attend(), expected);
assert.ok(nativeReport().calls.tensorflow >= 3);
