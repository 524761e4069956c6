/** All of tfjs-core plus `flashAttention`: `import * as tf from 'tfjs-flash-attention/tf'`. */
export * from '@tensorflow/tfjs-core';
export * from './index.js';
