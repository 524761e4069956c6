import {invalid} from './errors.js';

type Json = Record<string, unknown>;
/** [layer, node, tensor, call arguments], as Keras 2 (and tfjs) write an input of a layer. */
type InboundTensor = [string, number, number, Json?];

const KERAS_CLASSES: ReadonlySet<unknown> =
    new Set(['MultiHeadAttention', 'GroupedQueryAttention', 'GroupQueryAttention']);

const isTensor = (value: unknown): value is InboundTensor => Array.isArray(value) && typeof value[0] === 'string';

/** Call arguments that hold a tensor, in the order in which our layer takes them as inputs. */
const MASK_ARGUMENTS = ['value_mask', 'key_mask', 'attention_mask'];
const HARMLESS: ReadonlySet<string> = new Set(['training', 'return_attention_scores']);

/** One call of the layer: Keras' keyword arguments that are tensors become inputs, the causal flag is given back. */
function rewriteNode(node: InboundTensor[], layer: unknown): {node: InboundTensor[], causal: boolean} {
  const kwargs = node[0]?.[3] ?? {};
  const tensor = (name: string): InboundTensor|undefined => {
    const value = kwargs[name];
    return isTensor(value) ? [value[0], value[1], value[2], {}] : undefined;
  };
  const main = node.map(([name, index, place]): InboundTensor => [name, index, place, {}]);
  const value = main[1] ?? tensor('value');
  const key = main[2] ?? tensor('key');
  const masks = MASK_ARGUMENTS.map(tensor).filter(mask => mask !== undefined);
  for (const [name, given] of Object.entries(kwargs)) {
    const used = ['value', 'key', ...MASK_ARGUMENTS].includes(name) && isTensor(given);
    if (!used && !HARMLESS.has(name) && name !== 'use_causal_mask' && given != null) {
      throw invalid('no such call argument in a Keras model', `${name} of layer '${layer}'`, given);
    }
  }
  if (kwargs.return_attention_scores || kwargs.training != null && kwargs.training !== false) {
    throw invalid('false', `training and return_attention_scores of layer '${layer}'`, kwargs);
  }
  if (!value) {
    throw invalid('a value', `the call of layer '${layer}'`, kwargs);
  }
  // An attention mask of rank 3 is told apart from a key by coming after one.
  const inputs = masks.length > 0 ? [main[0], value, key ?? value] : [main[0], value, ...key ? [key] : []];
  return {node: [...inputs, ...masks], causal: kwargs.use_causal_mask === true};
}

function rewriteLayer(layer: Json): Json {
  const nodes = (layer.inbound_nodes ?? []) as InboundTensor[][];
  if (!nodes.every(node => Array.isArray(node) && node.every(isTensor))) {
    throw invalid('inbound_nodes as Keras 2 writes them', `layer '${layer.name}'`, nodes);
  }
  const rewritten = nodes.map(node => rewriteNode(node, layer.name));
  const causal = rewritten.some(call => call.causal);
  if (causal && !rewritten.every(call => call.causal)) {
    throw invalid('use_causal_mask alike in every call', `layer '${layer.name}'`, rewritten.map(call => call.causal));
  }
  return {
    ...layer,
    class_name: 'FlashMultiHeadAttention',
    config: {...layer.config as Json, use_causal_mask: causal},
    ...layer.inbound_nodes !== undefined && {inbound_nodes: rewritten.map(call => call.node)},
  };
}

/**
 * Rewrites a Keras model's topology (`modelTopology` of a model.json that tensorflowjs_converter wrote, Keras 2
 * format) so that tfjs loads every `MultiHeadAttention` and `GroupedQueryAttention` as
 * {@link FlashMultiHeadAttention}. No class is registered under Keras' names for this: tfjs has a MultiHeadAttention in
 * its source (though not in its 4.22 bundle), and Keras writes the value as a call argument, which tfjs would drop.
 *
 * ```js
 * const files = tf.io.browserHTTPRequest('model.json');
 * const artifacts = await files.load();
 * artifacts.modelTopology = replaceKerasAttention(artifacts.modelTopology);
 * const model = await tf.loadLayersModel({load: async () => artifacts});
 * ```
 * @returns a copy; the argument is not changed.
 * @throws on a call argument that our layer does not have.
 */
export function replaceKerasAttention<T>(topology: T): T {
  if (Array.isArray(topology)) {
    return topology.map(replaceKerasAttention) as T;
  }
  if (topology === null || typeof topology !== 'object') {
    return topology;
  }
  const copy = Object.fromEntries(
      Object.entries(topology).map(([key, value]) => [key, replaceKerasAttention(value as unknown)])) as Json;
  const isLayer = KERAS_CLASSES.has(copy.class_name) && typeof copy.config === 'object' && copy.config !== null;
  return (isLayer ? rewriteLayer(copy) : copy) as T;
}
