// Loads the package in the folder that is given, as a user's program does, and multiplies two matrices with it.
// Writes one line of JSON. In a process of its own, since a library that does not fit can end it.
const tf = require(process.argv[2]);

const product = tf.matMul([[1, 2], [3, 4]], [[5, 6], [7, 8]]).dataSync();
if (tf.getBackend() !== 'tensorflow' || product.join() !== '19,22,43,50') {
  throw new Error(`expected 19,22,43,50 from the backend tensorflow, received ${product} from ${tf.getBackend()}`);
}
console.log(JSON.stringify({onGpu: tf.backend().isUsingGpuDevice}));
