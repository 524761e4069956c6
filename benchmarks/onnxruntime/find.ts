import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

/** Where `npm run bundle -- --peers` puts onnxruntime-node, seen from here and from a program of the bundle. */
const FOLDERS = ['../../build/onnxruntime', '../onnxruntime'];

/** The folder whose node_modules holds onnxruntime-node, if any. No dependency, since its package has 108 MB. */
export function findOnnxruntime(): string|undefined {
  return FOLDERS.map(folder => fileURLToPath(new URL(folder, import.meta.url)))
      .find(folder => existsSync(join(folder, 'node_modules/onnxruntime-node/package.json')));
}
