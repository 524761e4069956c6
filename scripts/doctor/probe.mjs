// @ts-check
// node probe.mjs <what> <project>: tries one thing as a program of the project would, and writes one line of JSON. In a
// process of its own, since what is tried can end it.
import {existsSync, readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

import {findPackage, packageName} from '../setup_tfjs_node/tfjs_node.mjs';

/** @typedef {import('./findings.mjs').BackendFacts} BackendFacts */

const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));
const [, , what, project] = process.argv;
const requireOfProject = createRequire(join(project, 'package.json'));
const requireOwn = createRequire(join(PACKAGE, 'package.json'));

const messageOf = (/** @type {unknown} */ error) => error instanceof Error ? error.message : String(error);

/** A module of this package's own, as `import` finds it. @returns {Promise<any>} */
const own = (/** @type {string} */ path) => import(pathToFileURL(join(PACKAGE, 'dist/esm', path)).href);

/**
 * A small call on the current backend of `tf` against what it should give, and whether the addon ran it.
 * @param {any} tf @param {string} entry of this package, to be found by require()
 * @returns {Promise<BackendFacts>}
 */
async function tryBackend(tf, entry) {
  const {flashAttention} = requireOfProject(entry);
  const {nativeReport} = await own('node.js'); // counts the calls of the process, whoever made them
  const before = nativeReport().calls?.forward;
  const computes = tf.tidy(() => {
    const [q, k, v] = [1, 2, 3].map(seed => tf.randomNormal([1, 5, 2, 8], 0, 1, 'float32', seed));
    const heads = (/** @type {any} */ x) => tf.transpose(x, [0, 2, 1, 3]);
    const weights = tf.softmax(tf.mul(tf.matMul(heads(q), heads(k), false, true), 1 / Math.sqrt(8)));
    const expected = heads(tf.matMul(weights, heads(v)));
    const worst = tf.max(tf.abs(tf.sub(flashAttention(q, k, v), expected))).dataSync()[0];
    return worst < 1e-4;
  });
  return {computes, kernel: nativeReport().calls?.forward > before ? 'native' : 'TypeScript'};
}

const OWN_ENTRY = join(PACKAGE, 'dist/cjs/index.js');

/** @type {Record<string, () => Promise<object> | object>} */
const PROBES = {
  async addon() {
    const {loaded, path, instructionSet, threads, cuda, problem} = (await own('node.js')).nativeReport();
    const off = process.env.FLASH_ATTENTION_NATIVE === 'off';
    return loaded ? {path, instructionSet, threads, cuda} :
      off ? {off} : {error: problem.replace(/^flashAttention: /, '')};
  },

  async cpu() {
    const tf = requireOwn('@tensorflow/tfjs-core');
    requireOwn('@tensorflow/tfjs-backend-cpu');
    await tf.setBackend('cpu');
    return tryBackend(tf, OWN_ENTRY);
  },

  async wasm() {
    const found = findPackage(project, '@tensorflow/tfjs-backend-wasm');
    if (!found) {
      return {};
    }
    const tf = requireOwn('@tensorflow/tfjs-core');
    requireOfProject('@tensorflow/tfjs-backend-wasm');
    await tf.setBackend('wasm');
    return {version: found.version, dir: found.dir, ...await tryBackend(tf, OWN_ENTRY)};
  },

  async tensorflow() {
    const found = [true, false].map(gpu => ({name: packageName(gpu), found: findPackage(project, packageName(gpu))}))
        .find(({found: one}) => one);
    if (!found?.found) {
      return {};
    }
    const {name, found: {version, dir}} = found;
    const facts = {name, version, dir};
    try {
      const tf = requireOfProject(name);
      await tf.setBackend('tensorflow');
      const {binding, isUsingGpuDevice} = tf.backend();
      const maps = existsSync('/proc/self/maps') ? readFileSync('/proc/self/maps', 'utf8') : '';
      const library = /\/\S*libtensorflow(?:_cc)?\.so\S*/.exec(maps)?.[0];
      const info = library && join(dirname(library), 'python/platform/build_info.py');
      const isCuda = info && existsSync(info) ? /'is_cuda_build', True/.test(readFileSync(info, 'utf8')) :
        /libcudart|libcudnn|nvidia\//.test(maps) || isUsingGpuDevice;
      return {
        ...facts, tensorflow: binding?.TF_Version, library, isCuda, onGpu: isUsingGpuDevice,
        ...await tryBackend(tf, OWN_ENTRY),
      };
    } catch (error) {
      return {...facts, error: messageOf(error).split('\n')[0]};
    }
  },

  async webgpu() {
    const facts = {
      version: findPackage(PACKAGE, 'webgpu')?.version,
      hasBackend: findPackage(PACKAGE, '@tensorflow/tfjs-backend-webgpu') !== undefined,
    };
    if (facts.version === undefined || !facts.hasBackend) {
      return facts;
    }
    try {
      const {enableWebGPU} = await own('node.js');
      const {adapter, hardware, features, matrixConfigurations, missing} = await enableWebGPU();
      return {...facts, report: {adapter, hardware, features, matrixConfigurations, missing}};
    } catch (error) {
      return {...facts, error: messageOf(error)};
    }
  },
};

/** @type {object} */
let facts;
try {
  facts = await PROBES[what]();
} catch (error) {
  facts = {error: messageOf(error)};
}
process.stdout.write(`\n${JSON.stringify(facts)}\n`, () => process.exit(0)); // Dawn keeps Node alive
