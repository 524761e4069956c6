import {layers} from '@tensorflow/tfjs-layers';
import type {SymbolicTensor} from '@tensorflow/tfjs-layers';

import {rolesOf} from './inputs.js';
import {maskOrigin} from './mask_origin.js';
import {FlashAttentionMask} from './mask_tensor_layer.js';

/** One mask tensor for each source, however many layers attend to it. */
const maskTensors = new WeakMap<SymbolicTensor, SymbolicTensor>();

function maskTensorOf(source: SymbolicTensor): SymbolicTensor {
  let mask = maskTensors.get(source);
  if (!mask) {
    mask = new FlashAttentionMask().apply(source) as SymbolicTensor;
    maskTensors.set(source, mask);
  }
  return mask;
}

/**
 * tfjs counts readers of a tensor by layer but counts them down by input: `apply([x, x])` makes `predict` dispose x
 * before its next reader comes ("Tensor is disposed"). So no tensor goes in twice: one that only repeats the default
 * is left out, any other goes through a layer that copies it.
 */
function withoutRepeats(inputs: SymbolicTensor[]): SymbolicTensor[] {
  const {query, value, key, paddingMasks, attentionMasks} = rolesOf(inputs);
  const main = inputs.slice(0, inputs.length - paddingMasks.length - attentionMasks.length);
  const masks = inputs.slice(main.length);
  // An attention mask of rank 3 would be taken for the key that is left out before it.
  if (!attentionMasks.some(mask => mask.shape.length === 3)) {
    if (main.length === 3 && key === value) {
      main.pop();
    }
    if (main.length === 2 && value === query) {
      main.pop();
    }
  }
  return [...main, ...masks].map((input, place, all) =>
      all.indexOf(input) === place ? input :
                                     layers.activation({activation: 'linear'}).apply(input) as SymbolicTensor);
}

/**
 * The inputs under which a layer enters a graph: without repeats, and with the masks of value and key as inputs of
 * their own where the graph may give them one (`kwargs.mask` carries the query's). A graph that is loaded from a file
 * has them already; a padding mask that the caller gives stands instead of them.
 */
export function symbolicInputs(given: SymbolicTensor[]): SymbolicTensor[] {
  const {value, key, paddingMasks} = rolesOf(given);
  const inputs = withoutRepeats(given);
  if (paddingMasks.length > 0) {
    return inputs;
  }
  const passed = rolesOf(inputs);
  const sources = new Set<SymbolicTensor>();
  for (const [source, input] of [[value, passed.value], [key, passed.key]]) {
    if (input !== passed.query && maskOrigin(source).made) {
      sources.add(source);
    }
  }
  return [...inputs, ...[...sources].map(maskTensorOf)];
}
