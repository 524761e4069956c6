import type {BiasSpec, Row} from './case.js';

const WIDE = {queryLength: 70, keyLength: 130};
const TALL = {queryLength: 130, keyLength: 70};
const GROUPED = {queryHeads: 4, keyHeads: 2, batch: 2};
const TOP_LEFT = {causalAlignment: 'top-left' as const};
const BHND = {layout: 'bhnd' as const};

function windows(): Row[] {
  return [
    {...WIDE, headSize: 20, windowSize: [16, 8]},
    {...WIDE, headSize: 20, windowSize: [16, 8], ...TOP_LEFT},
    {...WIDE, headSize: 20, windowSize: [300, 300]},
    {...WIDE, headSize: 64, windowSize: [0, 0], ...BHND},
    {...WIDE, headSize: 32, windowSize: [5, -1], ...GROUPED},
    // The first queries see nothing, and with top-left the last ones.
    {...TALL, headSize: 32, windowSize: [-1, 3], ...BHND},
    {...TALL, headSize: 32, windowSize: [3, 3], ...TOP_LEFT},
    {...WIDE, headSize: 32, windowSize: [10, -1], causal: true, ...GROUPED},
    {...TALL, headSize: 13, windowSize: [40, 5], causal: true, ...TOP_LEFT},
    {queryLength: 129, keyLength: 129, headSize: 64, windowSize: [64, 0]},
    {queryLength: 129, keyLength: 129, headSize: 40, valueSize: 24, windowSize: [63, 0], causal: true},
  ];
}

function softcapsAndSlopes(): Row[] {
  return [
    {...WIDE, headSize: 64, softcap: 2},
    {...WIDE, headSize: 9, softcap: 0.5, causal: true, ...GROUPED, ...BHND},
    {...TALL, headSize: 64, softcap: 30, causal: true, values: 'large'},
    {...WIDE, headSize: 20, softcap: 5, values: 'nan'},
    {...WIDE, headSize: 20, softcap: 5, values: 'infinite', causal: true},
    {...WIDE, headSize: 32, alibi: 'head'},
    {...WIDE, headSize: 32, alibi: 'head', causal: true},
    {...TALL, headSize: 17, alibi: 'head', causal: true, ...TOP_LEFT},
    {...TALL, headSize: 32, alibi: 'batch', ...GROUPED, ...BHND},
    {...WIDE, headSize: 64, alibi: 'batch', windowSize: [20, 4], ...GROUPED, ...TOP_LEFT},
    {...WIDE, headSize: 32, alibi: 'head', softcap: 3, values: 'nan', causal: true},
    {...TALL, headSize: 64, alibi: 'head', softcap: 50, values: 'large', windowSize: [-1, 9], ...BHND},
  ];
}

function biases(): Row[] {
  const wide = {...WIDE, ...GROUPED, headSize: 16};
  const shapes: Array<BiasSpec['shape']> = [
    [2, 4, 70, 130], [1, 4, 70, 130], [1, 1, 70, 130], [2, 1, 1, 130], [1, 1, 1, 130], [1, 4, 70, 1], [2, 1, 1, 1],
  ];
  return [
    ...shapes.map((shape): Row => ({...wide, biasSpec: {shape, values: 'normal'}})),
    {...wide, biasSpec: {shape: [1, 4, 70, 130], values: 'large'}, ...BHND},
    {...wide, biasSpec: {shape: [1, 1, 1, 130], values: 'withMinusInfinity'}, causal: true},
    {...wide, biasSpec: {shape: [2, 4, 70, 130], values: 'withMinusInfinity'}, values: 'nan'},
    {...wide, biasSpec: {shape: [1, 4, 70, 130], values: 'withMinusInfinity'}, causal: true, values: 'infinite'},
    // Whole queries are hidden.
    {...wide, biasSpec: {shape: [2, 1, 70, 1], values: 'withMinusInfinity'}},
    {...TALL, headSize: 33, biasSpec: {shape: [1, 2, 130, 70], values: 'normal'}, causal: true, ...TOP_LEFT},
    {...TALL, headSize: 64, biasSpec: {shape: [1, 1, 130, 70], values: 'normal'}, causal: true, dropoutP: 0.2, seed: 3},
  ];
}

function lengths(): Row[] {
  return [
    {...WIDE, headSize: 32, batch: 3, lengths: 'key'},
    {...WIDE, headSize: 32, batch: 3, lengths: 'query', ...BHND},
    {...WIDE, headSize: 32, batch: 4, lengths: 'both', causal: true},
    {...TALL, headSize: 18, batch: 3, lengths: 'both', causal: true, ...TOP_LEFT},
    {...TALL, headSize: 64, batch: 3, lengths: 'both', causal: true, queryHeads: 4, keyHeads: 1},
    {...WIDE, headSize: 20, batch: 3, lengths: 'both', windowSize: [12, 7], ...BHND},
    {...TALL, headSize: 20, batch: 3, lengths: 'both', alibi: 'batch'},
    {...WIDE, headSize: 20, batch: 3, lengths: 'both', values: 'nan'},
    {...WIDE, headSize: 20, batch: 3, lengths: 'key', values: 'infinite', causal: true},
  ];
}

function sinks(): Row[] {
  return [
    {...WIDE, headSize: 32, sinks: true},
    // Queries that see no key have their sink's logit for an LSE.
    {...TALL, headSize: 32, sinks: true, causal: true, ...GROUPED},
    {...WIDE, headSize: 15, sinks: true, maskSpec: {shape: [1, 1, 1, 1], hidden: 1}, ...GROUPED},
    {...WIDE, headSize: 64, sinks: true, values: 'large', ...BHND, ...GROUPED},
    {...WIDE, headSize: 64, sinks: true, values: 'nan', causal: true},
    {...WIDE, headSize: 32, sinks: true, dropoutP: 0.4, seed: 11},
    {...TALL, headSize: 32, batch: 3, sinks: true, lengths: 'both'},
    // As gpt-oss calls it.
    {queryLength: 129, keyLength: 129, headSize: 64, sinks: true, windowSize: [31, 0], queryHeads: 8, keyHeads: 1},
  ];
}

function combinations(): Row[] {
  const mask = {maskSpec: {shape: [2, 1, 70, 130] as const, hidden: 0.5}};
  const bias = {biasSpec: {shape: [1, 4, 70, 130] as const, values: 'withMinusInfinity' as const}};
  const all: Row = {
    ...WIDE, ...GROUPED, ...mask, ...bias, headSize: 22, valueSize: 40, causal: true, windowSize: [60, 0], softcap: 4,
    alibi: 'batch', lengths: 'both', sinks: true, dropoutP: 0.25, seed: 2 ** 40 + 5,
  };
  return [
    all,
    {...all, ...TOP_LEFT, ...BHND},
    {...all, causal: false, windowSize: [50, 30], values: 'nan'},
    {...all, values: 'infinite', alibi: 'head', ...BHND},
    {...all, values: 'large', softcap: 0, dropoutP: 0},
    {...WIDE, ...GROUPED, ...mask, headSize: 32, windowSize: [30, 30], softcap: 10},
    {...WIDE, ...GROUPED, ...mask, ...bias, headSize: 32, values: 'nan'},
    {...WIDE, ...GROUPED, ...mask, headSize: 7, alibi: 'head', dropoutP: 0.5, seed: 1},
    {...TALL, ...GROUPED, headSize: 36, windowSize: [20, 20], lengths: 'key', sinks: true, ...TOP_LEFT, ...BHND},
    {...TALL, ...GROUPED, headSize: 128, softcap: 20, causal: true, windowSize: [48, -1]},
    {...WIDE, ...GROUPED, headSize: 96, valueSize: 64, biasSpec: {shape: [2, 4, 1, 130], values: 'normal'}, softcap: 1},
    // Decoding: one query a sequence over a cache that is filled to different lengths.
    {queryLength: 1, keyLength: 130, headSize: 64, batch: 4, queryHeads: 8, keyHeads: 2, lengths: 'key', causal: true},
    {queryLength: 1, keyLength: 130, headSize: 64, batch: 3, lengths: 'key', sinks: true, alibi: 'head', softcap: 30},
    // NaN reaches neither padding nor a sink of −∞.
    {...TALL, headSize: 32, batch: 3, lengths: 'both', sinks: true, values: 'nan', causal: true},
    ...[24, 25, 26, 27].map((headSize): Row => ({...WIDE, ...GROUPED, headSize, sinks: true, values: 'nan'})),
  ];
}

/** Few queries over many keys: groups of heads that share a key head, keys that are split, and every option. */
function decoding(): Row[] {
  const grouped = {queryHeads: 4, keyHeads: 2, batch: 2};
  const all: Row = {
    queryLength: 3, keyLength: 300, ...grouped, headSize: 22, valueSize: 40, causal: true, windowSize: [200, 0],
    softcap: 4, alibi: 'batch', lengths: 'both', sinks: true, dropoutP: 0.25, seed: 2 ** 40 + 5,
    maskSpec: {shape: [2, 1, 3, 300], hidden: 0.5},
    biasSpec: {shape: [1, 4, 3, 300], values: 'withMinusInfinity'},
  };
  return [
    {queryLength: 1, keyLength: 700, headSize: 128, queryHeads: 8, keyHeads: 2},
    {queryLength: 4, keyLength: 700, headSize: 80, queryHeads: 4, keyHeads: 1, causal: true},
    {queryLength: 2, keyLength: 333, headSize: 256, causal: true, ...BHND},
    {queryLength: 3, keyLength: 300, headSize: 64, valueSize: 32, windowSize: [40, 1]},
    {queryLength: 1, keyLength: 700, headSize: 20, ...grouped, maskSpec: {shape: [2, 4, 1, 700], hidden: 0.5},
      values: 'nan'},
    {queryLength: 4, keyLength: 300, headSize: 32, ...grouped, causal: true, values: 'infinite',
      biasSpec: {shape: [1, 4, 4, 300], values: 'withMinusInfinity'}},
    {queryLength: 4, keyLength: 333, headSize: 24, valueSize: 40, ...grouped, dropoutP: 0.3, seed: 9},
    {queryLength: 2, keyLength: 700, headSize: 13, batch: 3, queryHeads: 6, alibi: 'batch', softcap: 5,
      lengths: 'both', sinks: true, keyHeads: 2, causal: true},
    {queryLength: 1, keyLength: 700, headSize: 96, batch: 4, lengths: 'key', sinks: true, values: 'nan', ...BHND},
    {queryLength: 4, keyLength: 130, headSize: 128, values: 'large', causal: true, ...TOP_LEFT},
    {queryLength: 4, keyLength: 3, headSize: 64, causal: true, ...grouped},
    all,
    {...all, values: 'nan', causal: false, ...BHND},
  ];
}

/** Each option alone, then with what changes its meaning: alignment, lengths, empty rows, NaN and ∞. */
export function optionRows(): Row[] {
  return [
    ...windows(), ...softcapsAndSlopes(), ...biases(), ...lengths(), ...sinks(), ...combinations(),
    ...decoding(),
  ];
}
