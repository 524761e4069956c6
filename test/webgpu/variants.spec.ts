import {specVariants} from '../support/variant_specs.js';

describe('variants of attention', () => {
  specVariants('webgpu');
});
