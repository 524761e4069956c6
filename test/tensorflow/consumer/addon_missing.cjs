// tfjs-node without the addon: the TypeScript kernel serves, and says once what is missing; or nothing, with
// FLASH_ATTENTION_NATIVE=off.
const assert = require('node:assert/strict');

const tf = require('@tensorflow/tfjs-node');
const {flashAttention, nativeReport, setNativeThreads} = require('tfjs-flash-attention/node');

const isOff = process.env.FLASH_ATTENTION_NATIVE === 'off';
const warnings = [];
console.warn = text => warnings.push(text);
const x = tf.ones([1, 4, 1, 4]);
for (let n = 0; n < 2; n++) {
  assert.deepEqual(flashAttention(x, x, x).dataSync(), new Float32Array(16).fill(1));
}
const {loaded, problem} = nativeReport();
assert.ok(!loaded);
assert.throws(() => setNativeThreads(1), {message: problem});
if (isOff) {
  assert.deepEqual(warnings, []);
  assert.match(problem, /FLASH_ATTENTION_NATIVE=off/);
} else {
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /flashAttention: the native addon does not load/);
  assert.match(warnings[0], /nowhere\.node: there is no such file/);
  assert.match(warnings[0], /npm run build:native/);
}
