// node addon_cuda.cjs <computes|lost|full|none>: tfjs-node with the addon on a fake CUDA device (test/cuda), which
// FLASH_ATTENTION_LIBCUDA names; with `none`, on a machine without a driver or with an addon without kernels.
const assert = require('node:assert/strict');
const {copyFileSync, mkdtempSync, rmSync} = require('node:fs');
const {tmpdir} = require('node:os');
const {join} = require('node:path');

const task = process.argv[2];
if (task === 'lost') {
  process.env.FAKE_CUDA = 'fail=cuMemcpyHtoDAsync:700@2';
} else if (task === 'full') {
  process.env.FAKE_CUDA = `memory=${2 ** 28}`;
} else if (task === 'none') {
  process.env.FLASH_ATTENTION_LIBCUDA = '/nowhere/libcuda.so.1';
}

const tf = require('@tensorflow/tfjs-node');
const {flashAttention, nativeReport, setNativeDevice} = require('tfjs-flash-attention/node');

function open(path) {
  const module = {exports: {}};
  process.dlopen(module, path);
  return module.exports;
}

/** What attention gives, and its gradient. */
function attention() {
  return tf.tidy(() => {
    const x = tf.tensor(Float32Array.from({length: 2 * 20 * 4 * 8}, (_, n) => Math.sin(n)), [2, 20, 4, 8]);
    const f = q => flashAttention(q, x, x, {causal: true, keyLengths: [20, 13], computeType: 'bfloat16'});
    return [...f(x).dataSync(), ...tf.grad(f)(x).dataSync()];
  });
}

const warnings = [];
console.warn = text => warnings.push(text);
const expected = attention();
const before = nativeReport().calls;

/** Calls since then. */
function counted() {
  const after = nativeReport().calls;
  return Object.fromEntries(Object.keys(after).map(name => [name, after[name] - before[name]]));
}

const TASKS = {
  computes() {
    setNativeDevice('cuda');
    assert.deepEqual(attention(), expected);
    // The forward pass runs for the gradient again.
    assert.deepEqual(counted(), {forward: 2, backward: 1, append: 0, tensorflow: 3, cuda: 3, inPlaceOfCuda: 0});
    // As TensorFlow itself has them in its list.
    const addon = open(nativeReport().path);
    assert.equal(addon.registerTensorFlow(false), false);
    assert.equal(addon.registerTensorFlow(true), true);
    assert.equal(addon.registerTensorFlow(true), true);
    const folder = mkdtempSync(join(tmpdir(), 'flash-attention-copy-'));
    const copy = join(folder, 'copy.node');
    copyFileSync(nativeReport().path, copy);
    assert.equal(open(copy).registerTensorFlow(true), true);
    rmSync(folder, {recursive: true});
    assert.deepEqual(attention(), expected);
    assert.equal(counted().tensorflow, 6);
  },

  lost() {
    setNativeDevice('cuda');
    assert.throws(attention, {message: /^flashAttention: cuMemcpyHtoDAsync: CUDA_ERROR_ILLEGAL_ADDRESS/});
    assert.throws(attention, {message: /^flashAttention: CUDA device 0 .*was lost to this process/});
    setNativeDevice('cpu');
    assert.deepEqual(attention(), expected);
  },

  full() {
    setNativeDevice('cuda');
    assert.throws(attention, {message: /^flashAttention: a key head of this call takes \d+ bytes or more/});
    setNativeDevice('cuda', {fallback: 'cpu'});
    assert.deepEqual(attention(), expected);
    assert.equal(counted().inPlaceOfCuda, 3);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /^flashAttention: the CPU computes in the place of the CUDA device: a key head /);
  },

  none() {
    assert.throws(() => setNativeDevice('cuda'), {message: /^flashAttention: expected a CUDA device .* for device/});
    assert.equal(open(nativeReport().path).registerTensorFlow(true), false);
    assert.deepEqual(attention(), expected);
  },
};

TASKS[task]();
