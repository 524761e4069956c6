import './backends/register.js';

export {flashAttention, flashAttentionWithLse} from './op/flash_attention.js';
export type {AttentionWithLse} from './op/flash_attention.js';
export type {AttentionLayout, CausalAlignment, ComputeType, FlashAttentionOptions} from './op/options.js';
export {extend} from './extend.js';
export type {FlashAttentionNamespace} from './extend.js';
