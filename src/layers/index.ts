// Registers the kernels and gradient of the op, without which a layer could not run.
import '../index.js';

export type {AttentionCallOptions} from './call_options.js';
export type {AttentionConfig, FlashMultiHeadAttentionArgs} from './config.js';
export {replaceKerasAttention} from './keras_topology.js';
export {FlashAttentionMask} from './mask_tensor_layer.js';
export {FlashMultiHeadAttention} from './multi_head_attention.js';
export type {AttendOptions} from './multi_head_attention.js';
export type {WeightArgs} from './weight_options.js';
