import {layers} from '@tensorflow/tfjs-layers';
import type {SymbolicTensor} from '@tensorflow/tfjs-layers';

/**
 * Where the mask of a symbolic tensor can come from. tfjs knows masks only while a model runs, and then tells a layer
 * just the mask of its first input, in `kwargs.mask`, an object that every layer of the run shares and that keeps
 * the last mask when a layer has none (tfjs-layers 4.22, engine/executor.ts). So which masks can exist is read from
 * the graph.
 */
export interface MaskOrigin {
  /** A layer before it in the same graph makes a mask, or may. */
  readonly made: boolean;
  /** Input layers whose mask would reach it, if this graph is a nested model and the outer one passes a mask. */
  readonly inputs: ReadonlySet<layers.Layer>;
}

/** A layer of ours that hands on its first input's mask says so, and subclasses inherit it. */
export interface PassesFirstMask {
  readonly passesFirstMask?: boolean;
}

const NONE: MaskOrigin = {made: false, inputs: new Set()};

/** tfjs classes with a `computeMask` of their own that gives the first input's mask, whatever it is meant to do. */
const FIRST_INPUT: ReadonlySet<string> = new Set(['Add', 'Average', 'Maximum', 'Minimum', 'Multiply']);
/** Those that combine the masks of all inputs. */
const ALL_INPUTS: ReadonlySet<string> = new Set(['Bidirectional', 'Concatenate']);

type HandsOn = 'nothing'|'the first input\'s'|'all inputs\''|'its own';

/** What mask a layer gives its output. */
function maskRule(layer: layers.Layer): HandsOn {
  const name = layer.getClassName();
  if (!layer.supportsMasking || name === 'Dot') {
    return 'nothing';
  }
  if ((layer as PassesFirstMask).passesFirstMask || FIRST_INPUT.has(name) ||
      layer.computeMask === layers.Layer.prototype.computeMask) {
    return 'the first input\'s';
  }
  // Masking, Embedding with maskZero, and any class that we do not know.
  return ALL_INPUTS.has(name) || layer instanceof layers.RNN ? 'all inputs\'' : 'its own';
}

/** What comes before a symbolic tensor never changes, and residual graphs have many ways back: each is walked once. */
const found = new WeakMap<SymbolicTensor, MaskOrigin>();

export function maskOrigin(tensor: SymbolicTensor): MaskOrigin {
  let origin = found.get(tensor);
  if (!origin) {
    origin = originOf(tensor);
    found.set(tensor, origin);
  }
  return origin;
}

function originOf({sourceLayer, inputs}: SymbolicTensor): MaskOrigin {
  if (sourceLayer.getClassName() === 'InputLayer') {
    return {made: false, inputs: new Set([sourceLayer])};
  }
  const rule = maskRule(sourceLayer);
  if (rule === 'nothing') {
    return NONE;
  }
  if (rule === 'its own') {
    return {made: true, inputs: new Set()};
  }
  const origins = (rule === 'all inputs\'' ? inputs : inputs.slice(0, 1)).map(maskOrigin);
  return {
    made: origins.some(origin => origin.made),
    inputs: new Set(origins.flatMap(origin => [...origin.inputs])),
  };
}

/** Whether a mask can arise in the run of a model that this layer is part of: in its graph, or a model nested there. */
export function graphMakesMasks(layer: layers.Layer, seen = new Set<layers.Layer>()): boolean {
  const waiting = [layer];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (seen.has(next)) {
      continue;
    }
    seen.add(next);
    if (maskRule(next) === 'its own') {
      return true;
    }
    waiting.push(...(next as {layers?: layers.Layer[]}).layers ?? []);
    for (const node of next.inboundNodes) {
      waiting.push(...node.inboundLayers);
    }
    for (const node of next.outboundNodes) {
      waiting.push(node.outboundLayer);
    }
  }
  return false;
}

/** Whether two inputs, by place, of every use of a layer get the same outer mask, if there is one, and no other. */
export function shareOuterMask(layer: layers.Layer, a: number, b: number): boolean {
  return layer.inboundNodes.length > 0 && layer.inboundNodes.every(({inputTensors}) => {
    if (inputTensors[a] === undefined || inputTensors[b] === undefined) {
      return false;
    }
    const [first, second] = [maskOrigin(inputTensors[a]), maskOrigin(inputTensors[b])];
    return !first.made && !second.made && second.inputs.size > 0 && first.inputs.size === second.inputs.size &&
        [...first.inputs].every(input => second.inputs.has(input));
  });
}

/**
 * Whether the mask that tfjs passes can be that of a layer's first input, and not one left over from another layer.
 * Where an input of the model may bring a mask from outside, and another layer of the graph makes one, it is taken for
 * the latter's. A layer that is applied both to what has a mask and to what has none cannot tell the two apart.
 */
export function receivesFirstMask(layer: layers.Layer): boolean {
  if (layer.inboundNodes.length === 0) {
    return true;
  }
  const origins = layer.inboundNodes.map(node => maskOrigin(node.inputTensors[0]));
  return origins.some(origin => origin.made) ||
      origins.some(origin => origin.inputs.size > 0) && !graphMakesMasks(layer);
}
