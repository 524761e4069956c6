import * as tf from '@tensorflow/tfjs';

// Whichever spec comes first in the random order: the backend that most expect, and to which the others go back.
beforeAll(() => tf.setBackend('cpu'));
