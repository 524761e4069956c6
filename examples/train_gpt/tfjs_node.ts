import {existsSync, readFileSync} from 'node:fs';
import Module, {createRequire} from 'node:module';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import * as tf from '@tensorflow/tfjs';

const NAMES = ['@tensorflow/tfjs-node', '@tensorflow/tfjs-node-gpu'] as const;
const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));

/** Where the backend `tensorflow` comes from. */
export interface TfjsNode {
  readonly name: string;
  readonly version: string;
  /** Of the TensorFlow that it computes with. */
  readonly tensorflow: string;
}

type Resolve = (request: string, parent: unknown, isMain: boolean, options?: {paths: string[]}) => string;

/** The project whose tfjs-node is used. */
const project = (): string => process.env.TFJS_NODE || CHECKOUT;

/** The package's folder, if it is there. */
export function findTfjsNode(): string|undefined {
  return NAMES.map(name => join(project(), 'node_modules', name))
      .find(folder => existsSync(join(folder, 'package.json')));
}

/**
 * Loads tfjs-node and makes `tensorflow` the current backend: tfjs-node of the project that the environment variable
 * TFJS_NODE names, else the checkout's own. Another project has its own tfjs, too; tfjs-node gets ours in its place, or
 * all kernels would be registered twice.
 * @throws with the cause and what to do about it, in one line.
 */
export function loadTfjsNode(): TfjsNode {
  const folder = findTfjsNode();
  if (folder === undefined) {
    throw new Error(
        `there is no ${NAMES[0]} in ${join(project(), 'node_modules')}; npx tfjs-flash-attention setup-tfjs-node ` +
        '--no-save puts it into a checkout and leaves package.json as it is, TFJS_NODE=<folder> names a project that ' +
        'has it');
  }
  const loader = Module as unknown as {_resolveFilename: Resolve};
  const resolve = loader._resolveFilename;
  loader._resolveFilename = function(this: unknown, request, parent, isMain, options) {
    const isOurs = /^@tensorflow\/tfjs(-(?!node)[\w-]+)?$/.test(request);
    return resolve.call(this, request, parent, isMain, isOurs ? {paths: [CHECKOUT]} : options);
  };
  try {
    process.env.TF_CPP_MIN_LOG_LEVEL ??= '1'; // what it says of instruction sets is of no use to who runs this
    const manifest = join(folder, 'package.json');
    createRequire(manifest)(folder);
    const {name, version} = JSON.parse(readFileSync(manifest, 'utf8')) as {name: string, version: string};
    const {binding} = tf.backend() as unknown as {binding: {TF_Version: string}};
    return {name, version, tensorflow: binding.TF_Version};
  } catch (error) {
    throw new Error(`${folder} does not load (${(error as Error).message.split('\n')[0]}); ` +
                    'npx tfjs-flash-attention setup-tfjs-node repairs it');
  } finally {
    loader._resolveFilename = resolve;
  }
}
