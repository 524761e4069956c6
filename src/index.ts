import './backends/register.js';

export {enableWebGPU} from './backends/webgpu/enable_webgpu.js';
export type {WebGPUOptions} from './backends/webgpu/enable_webgpu.js';
export type {MatrixConfiguration, MissingFeature, Replaced, WebGPUReport} from './backends/webgpu/report.js';
export {flashAttention, flashAttentionWithLse} from './op/flash_attention.js';
export type {AttentionWithLse} from './op/flash_attention.js';
export type {
  AttentionLayout, CausalAlignment, CommonOptions, ComputeType, FlashAttentionOptions,
} from './op/options.js';
export type {CallShapeOptions, CallShapes, Gradients, ShapeOf} from './op/planned_call.js';
export {prepare} from './op/prepare.js';
export type {PrepareOptions} from './op/prepare.js';
export type {TunedKind, TuneReport} from './op/kernels.js';
export {tune} from './op/tune.js';
export type {TuneOptions} from './op/tune.js';
export {alibiSlopes} from './op/variants/alibi_slopes.js';
export {dropoutKeepMask} from './op/variants/dropout_mask.js';
export type {DropoutMaskShape} from './op/variants/dropout_mask.js';
export {KvCache} from './op/variants/kv_cache.js';
export type {KvCacheAttendOptions, KvCacheConfig} from './op/variants/kv_cache.js';
export {flashAttentionWithKvCache} from './op/variants/kv_cache_attention.js';
export type {KvCacheOptions} from './op/variants/kv_cache_attention.js';
export {mergeAttention} from './op/variants/merge_attention.js';
export type {AttentionPart, MergeOptions} from './op/variants/merge_attention.js';
export {
  flashAttentionKvPacked, flashAttentionKvPackedWithLse, flashAttentionQkvPacked, flashAttentionQkvPackedWithLse,
} from './op/variants/packed.js';
export type {PackedAttentionOptions} from './op/variants/packed.js';
export {padInput, unpadInput} from './op/variants/padding.js';
export type {UnpaddedInput} from './op/variants/padding.js';
export {applyRotaryEmbedding} from './op/variants/rotary.js';
export type {RotaryOptions} from './op/variants/rotary.js';
export {
  flashAttentionVarlen, flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked, flashAttentionVarlenWithLse,
} from './op/variants/varlen.js';
export type {VarlenAttentionOptions, VarlenAttentionWithLse} from './op/variants/varlen.js';
export {extend} from './extend.js';
export type {FlashAttentionNamespace} from './extend.js';
