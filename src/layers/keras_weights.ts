import type {NamedTensorMap, Tensor} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';

/** A weight of the layer under the name it has in it, such as `query/kernel`. */
export interface ExpectedWeight {
  readonly name: string;
  readonly shape: readonly number[];
}

/** What Keras 3 calls the sub-layers, and what it calls their weights, in `.weights.h5` and `.keras` files. */
const SUBLAYERS: Readonly<Record<string, string>> = {
  query_dense: 'query', key_dense: 'key', value_dense: 'value', output_dense: 'attention_output', gate_dense: 'gate',
  attentionOutput: 'attention_output',
};
const NUMBERED: Readonly<Record<string, string>> = {'0': 'kernel', '1': 'bias'};

interface Named {
  /** As in the map. */
  readonly path: string;
  /** Folders before the sub-layer. */
  readonly parent: string;
  /** As in the layer: `query/kernel`. */
  readonly name: string;
}

/** `a/b/query/kernel:0`, `a/b/query_dense/vars/0`, `a/b/_query_dense/kernel`: parent `a/b`, name `query/kernel`. */
function parse(path: string): Named {
  const parts = path.replace(/:\d+$/, '').split('/').filter(part => part !== 'vars');
  const weight = parts.pop()!;
  const sublayer = (parts.pop() ?? '').replace(/^_/, '');
  return {path, parent: parts.join('/'), name: `${SUBLAYERS[sublayer] ?? sublayer}/${NUMBERED[weight] ?? weight}`};
}

/**
 * Finds a layer's weights in a name → tensor map, in the order of `expected`.
 * @param prefix last folders before the weights' own names, in a map that holds several layers.
 * @throws one error that lists everything missing, unexpected, ambiguous or of the wrong shape.
 */
export function findKerasWeights(
    expected: readonly ExpectedWeight[], weights: NamedTensorMap, prefix?: string): Tensor[] {
  const below = ({parent}: Named) => prefix === undefined || parent === prefix || parent.endsWith(`/${prefix}`);
  // The state of the generator behind dropout is no weight.
  const named = Object.keys(weights).filter(path => !/seed_generator/.test(path)).map(parse).filter(below);
  const problems: string[] = [];
  const used = new Set<Named>();
  const parents = new Set<string>();
  const tensors = expected.map(({name, shape}) => {
    const candidates = named.filter(candidate => candidate.name === name);
    candidates.forEach(candidate => {
      used.add(candidate);
      parents.add(candidate.parent);
    });
    if (candidates.length === 0) {
      problems.push(`${name} [${shape}] is missing`);
    } else if (candidates.length > 1) {
      problems.push(`${name} could be ${candidates.map(({path}) => path).join(' or ')} (give a prefix)`);
    } else if (!util.arraysEqual(weights[candidates[0].path].shape, shape as number[])) {
      problems.push(`${candidates[0].path} has shape [${weights[candidates[0].path].shape}] instead of [${shape}]`);
    }
    return weights[candidates[0]?.path];
  });
  for (const extra of named) {
    if (!used.has(extra) && parents.has(extra.parent)) {
      problems.push(`${extra.path} has no place in the layer`);
    }
  }
  if (problems.length > 0) {
    const names = expected.map(({name}) => name).join(', ');
    throw new Error(
        `FlashMultiHeadAttention: expected ${names} for weights${prefix === undefined ? '' : ` under '${prefix}'`}, ` +
        `received ${Object.keys(weights).length} tensors: ${problems.join('; ')}`);
  }
  return tensors;
}
