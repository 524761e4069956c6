import * as tf from '@tensorflow/tfjs';

import {withGradient} from './custom_gradient.js';
import {oneHotRows} from './one_hot.js';

type Inputs = tf.Tensor|tf.Tensor[];
type LayerArgs = NonNullable<ConstructorParameters<typeof tf.layers.Layer>[0]>;

const only = (inputs: Inputs): tf.Tensor => Array.isArray(inputs) ? inputs[0] : inputs;
const lastAxis = (shape: tf.Shape): number => shape[shape.length - 1]!;

/** Column sums [1,C] of [R,C] as a matrix product: tfjs' own sum over the first axis takes 30 times as long on wasm. */
function columnSums(x: tf.Tensor2D): tf.Tensor2D {
  return tf.matMul(tf.ones<tf.Rank.R2>([1, x.shape[0]]), x);
}

/**
 * Token numbers [B,T] → vectors [B,T,width], each the sum of the symbol's vector and the place's. The look-up is a
 * product with one-hot rows, since the gradient of `tf.gather` is missing on the wasm backend.
 */
export class TextEmbedding extends tf.layers.Layer {
  static className = 'TextEmbedding';
  private symbolVectors!: tf.LayerVariable;
  private placeVectors!: tf.LayerVariable;

  constructor(private readonly args: LayerArgs&{symbols: number, context: number, width: number}) {
    super(args);
  }

  override build() {
    const {symbols, context, width} = this.args;
    this.symbolVectors = this.addWeight('symbols', [symbols, width], 'float32', tf.initializers.zeros());
    this.placeVectors = this.addWeight('places', [context, width], 'float32', tf.initializers.zeros());
    this.built = true;
  }

  override computeOutputShape([batch, length]: tf.Shape): tf.Shape {
    return [batch, length, this.args.width];
  }

  override call(inputs: Inputs): tf.Tensor {
    return tf.tidy(() => {
      const ids = only(inputs) as tf.Tensor2D;
      const [batch, length] = ids.shape;
      const {symbols, context, width} = this.args;
      const chosen = oneHotRows(tf.reshape(ids, [batch * length]), symbols);
      const vectors = tf.matMul(chosen, this.symbolVectors.read() as tf.Tensor2D);
      const places = this.placeVectors.read() as tf.Tensor2D;
      return tf.add(
          tf.reshape(vectors, [batch, length, width]),
          length === context ? places : tf.slice(places, [0, 0], [length, width]));
    });
  }

  override getConfig(): tf.serialization.ConfigDict {
    const {symbols, context, width} = this.args;
    return {...super.getConfig(), symbols, context, width};
  }
}
tf.serialization.registerClass(TextEmbedding);

const NORM_EPSILON = 1e-5;

/**
 * Rows [R,C] and gain [C] → x · gain / √(mean x² + ε) (Zhang and Sennrich, "Root mean square layer normalization",
 * NeurIPS 2019).
 */
const rmsNorm = withGradient(([x, gain], save) => {
  const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), NORM_EPSILON));
  const normal = tf.mul(x, inverse);
  save([normal, inverse, gain]);
  return {
    value: tf.mul(normal, gain),
    gradient: (dy, [normal, inverse, gain]) => {
      const dNormal = tf.mul(dy, gain);
      const along = tf.mean(tf.mul(dNormal, normal), -1, true);
      const dx = tf.mul(tf.sub(dNormal, tf.mul(normal, along)), inverse);
      return [dx, tf.reshape(columnSums(tf.mul(dy, normal) as tf.Tensor2D), gain.shape)];
    },
  };
});

/** Root-mean-square normalisation of the last axis, with a learned gain. */
export class RmsNorm extends tf.layers.Layer {
  static className = 'RmsNorm';
  private gain!: tf.LayerVariable;

  override build(shape: tf.Shape) {
    this.gain = this.addWeight('gain', [lastAxis(shape)], 'float32', tf.initializers.ones());
    this.built = true;
  }

  override computeOutputShape(shape: tf.Shape): tf.Shape {
    return shape;
  }

  override call(inputs: Inputs): tf.Tensor {
    return tf.tidy(() => {
      const x = only(inputs);
      return tf.reshape(rmsNorm(tf.reshape(x, [-1, lastAxis(x.shape)]), this.gain.read()), x.shape);
    });
  }
}
tf.serialization.registerClass(RmsNorm);

/** x · σ(1.702x), the quick form of GELU (Hendrycks and Gimpel, 2016): tanh and erf take 15 times as long on wasm. */
const gelu = withGradient(([x], save) => {
  const gate = tf.sigmoid(tf.mul(x, 1.702));
  const y = tf.mul(x, gate);
  save([gate, y]);
  return {
    value: y,
    // dy/dx = σ + 1.702·y·(1 − σ)
    gradient: (dy, [gate, y]) => [tf.mul(dy, tf.add(gate, tf.mul(tf.mul(y, 1.702), tf.sub(1, gate))))],
  };
});

/** A matrix product along the last axis, without a bias, then GELU if asked for. */
export class Linear extends tf.layers.Layer {
  static className = 'Linear';
  private kernel!: tf.LayerVariable;

  constructor(private readonly args: LayerArgs&{units: number, gelu?: boolean}) {
    super(args);
  }

  override build(shape: tf.Shape) {
    this.kernel = this.addWeight('kernel', [lastAxis(shape), this.args.units], 'float32', tf.initializers.zeros());
    this.built = true;
  }

  override computeOutputShape(shape: tf.Shape): tf.Shape {
    return [...shape.slice(0, -1), this.args.units];
  }

  override call(inputs: Inputs): tf.Tensor {
    return tf.tidy(() => {
      const x = only(inputs);
      const rows = tf.reshape(x, [-1, lastAxis(x.shape)]) as tf.Tensor2D;
      const y = tf.matMul(rows, this.kernel.read() as tf.Tensor2D);
      return tf.reshape(this.args.gelu ? gelu(y) : y, [...x.shape.slice(0, -1), this.args.units]);
    });
  }

  override getConfig(): tf.serialization.ConfigDict {
    const {units, gelu} = this.args;
    return {...super.getConfig(), units, gelu: gelu ?? false};
  }
}
tf.serialization.registerClass(Linear);
