// A user in Node, whatever its version: the addon that the package brings computes.
const {isAbsolute, join} = require('node:path');

const tf = require('@tensorflow/tfjs');
const {flashAttention, nativeReport} = require('tfjs-flash-attention/node');

const check = require('./attention_check.cjs');

const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
tf.setBackend('cpu');
check.assertAttention('flashAttention', flashAttention(q, k, v, {causal: true}).dataSync());
const {path, problem, calls, instructionSet, threads} = nativeReport();
const expected = join('node_modules', 'tfjs-flash-attention', 'prebuilds', 'linux-x64', 'flash_attention.node');
if (!path || !isAbsolute(path) || !path.endsWith(expected) || calls.forward !== 1 || !(threads > 0)) {
  throw new Error(problem ?? `expected a call of ${expected}, received ${calls.forward} of ${path}`);
}
console.log(`Node ${process.version}: ${instructionSet}`);
