import '@tensorflow/tfjs-backend-wasm';

import {specVariants} from '../../support/variant_specs.js';

describe('variants of attention', () => {
  specVariants('cpu');
  specVariants('wasm');
});
