// node addon_order.cjs <before|after|worker|copies>: when the addon is loaded, and when TensorFlow. Needs
// FLASH_ATTENTION_ADDON.
const assert = require('node:assert/strict');
const {copyFileSync, mkdtempSync, rmSync} = require('node:fs');
const {tmpdir} = require('node:os');
const {join} = require('node:path');
const {isMainThread, parentPort, Worker, workerData} = require('node:worker_threads');

const tf = require('@tensorflow/tfjs');
const {flashAttention, nativeReport} = require('tfjs-flash-attention/node');

/** What attention on the current backend gives, and its gradient. */
function attention() {
  return tf.tidy(() => {
    const x = tf.tensor(Float32Array.from({length: 2 * 20 * 2 * 8}, (_, n) => Math.sin(n)), [2, 20, 2, 8]);
    const f = q => flashAttention(q, x, x, {causal: true});
    return [...f(x).dataSync(), ...tf.grad(f)(x).dataSync()];
  });
}

/** On `cpu` and then on `tensorflow`, by the addon. */
async function onBoth() {
  await tf.setBackend('cpu');
  const expected = attention();
  await tf.setBackend('tensorflow');
  const before = nativeReport().calls.tensorflow;
  const actual = attention();
  assert.ok(nativeReport().calls.tensorflow >= before + 2);
  actual.forEach((value, n) => assert.ok(Math.abs(value - expected[n]) < 1e-5));
}

function open(path) {
  const module = {exports: {}};
  process.dlopen(module, path);
  return module.exports;
}

async function inWorker(task) {
  const worker = new Worker(__filename, {workerData: task});
  const messages = [];
  worker.on('message', message => messages.push(message));
  const code = await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  assert.equal(code, 0);
  assert.deepEqual(messages, [`${task} done`]);
}

const TASKS = {
  /** The addon has worked before there is a TensorFlow. */
  async before() {
    await tf.setBackend('cpu');
    attention();
    assert.throws(() => open(nativeReport().path).registerTensorFlow(false),
        {message: 'flashAttention: no TensorFlow is loaded in this process: import @tensorflow/tfjs-node first'});
    require('@tensorflow/tfjs-node');
    await onBoth();
  },

  async after() {
    require('@tensorflow/tfjs-node');
    await onBoth();
  },

  /** A worker loads both first, registers the ops and ends; then two workers at once, and then this thread. */
  async worker() {
    await inWorker('after');
    await Promise.all([inWorker('many'), inWorker('many')]);
    await TASKS.after();
  },

  async many() {
    require('@tensorflow/tfjs-node');
    await tf.setBackend('tensorflow');
    const first = attention();
    for (let n = 0; n < 200; n++) {
      assert.deepEqual(attention(), first);
    }
  },

  /** A second copy of the file has memory of its own, and finds the ops of the first. */
  async copies() {
    require('@tensorflow/tfjs-node');
    const folder = mkdtempSync(join(tmpdir(), 'flash-attention-copy-'));
    const copy = join(folder, 'copy.node');
    copyFileSync(nativeReport().path, copy);
    const other = open(copy);
    assert.equal(other.registerTensorFlow(false), false);
    other.registerTensorFlow(false);
    rmSync(folder, {recursive: true});
    await tf.setBackend('tensorflow');
    attention();
    // TensorFlow calls the copy that was first; that of the package finds its ops there.
    assert.equal(other.calls().tensorflow, 3);
    assert.equal(nativeReport().calls.tensorflow, 0);
  },
};

const task = isMainThread ? process.argv[2] : workerData;
TASKS[task]().then(() => isMainThread ? undefined : parentPort.postMessage(`${task} done`));
