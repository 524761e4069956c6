/**
 * Times the WGSL kernels one by one under different plans, without tfjs: what the choice in
 * src/backends/webgpu/plan.ts rests on. GPU time from timestamp queries, the clocks warmed up right before each.
 *
 *   npx tsx benchmarks/kernel_lab.ts --kernels forward,backward_dq --sizes 64,128 --blockings 16x8x8,16x8x4:4:16
 *   npx tsx benchmarks/kernel_lab.ts --kernels decode --keys 4096,32768 --heads 32 --key-heads 8,32 --sizes 128
 *
 * A blocking is threadsX x threadsY x rows[:chunk[:rowChunk]]; without any, the plan's own choice is timed.
 * Variants of decode: see benchmarks/lab/decode.ts.
 *
 *   npx tsx benchmarks/kernel_lab.ts --shapes 1x16x1024x64,1x16x1024x64c --kinds matrix \
 *       --forward own,4x32/2,8x32/4w256 --dawn allow_unsafe_apis,vulkan_enable_f16_on_nvidia
 *
 * With shapes: whole calls and their kernels, of all kinds of plans; see benchmarks/lab/calls.ts.
 */
import {parseArgs} from 'node:util';

import {capabilitiesOf} from '../src/backends/webgpu/device.js';
import type {PlanKind} from '../src/backends/webgpu/choose.js';

import {labCalls} from './lab/calls.js';
import {labDecode} from './lab/decode.js';
import {openLab} from './lab/device.js';
import {labTiles} from './lab/tiles.js';
import type {TiledKernel} from './lab/tiles.js';

const {values: args} = parseArgs({options: {
  kernels: {type: 'string', default: 'forward,backward_dq,backward_dkv'},
  sizes: {type: 'string', default: '64,128'},
  // of the kernels over tiles
  tokens: {type: 'string', default: '16384'},
  length: {type: 'string', default: '4096'},
  width: {type: 'string', default: '2048'},
  causal: {type: 'boolean', default: false},
  blockings: {type: 'string', default: ''},
  kinds: {type: 'string', default: 'simt'},
  // of decode
  keys: {type: 'string', default: '4096,32768,131072'},
  heads: {type: 'string', default: '32'},
  'key-heads': {type: 'string', default: '8,32'},
  queries: {type: 'string', default: '1'},
  layout: {type: 'string', default: 'bnhd'},
  variants: {
    type: 'string',
    default: 'simt,own,stock,32x4:4,32x4:4e,32x4:8,32x4:8e,32x8:4e,32x8:8e,16x8:4e,16x8:8,8x16:4',
  },
  workgroups: {type: 'string', default: '0,264,1056'},

  // of whole calls
  shapes: {type: 'string', default: ''},
  forward: {type: 'string', default: 'own'},
  backward: {type: 'string', default: 'own'},

  dawn: {type: 'string', default: 'allow_unsafe_apis'},
  label: {type: 'string', default: ''},
}});

const list = (text: string) => text === '' ? [] : text.split(',');
const numbers = (text: string) => list(text).map(Number);

const lab = await openLab(args.dawn);
const {info} = lab.adapter;
const capabilities = capabilitiesOf(lab.device);
console.log(`${info.vendor} ${info.architecture} ${info.description}; dawn ${args.dawn} ${args.label}`);
const kernels = list(args.kernels);
const tiled = kernels.filter((name): name is TiledKernel => name !== 'decode');
const shapes = list(args.shapes);
await labCalls(lab, capabilities, {
  shapes, kernels: tiled, kinds: list(args.kinds) as PlanKind[], forward: list(args.forward),
  backward: list(args.backward),
});
if (tiled.length > 0 && shapes.length === 0) {
  console.log(`tokens ${args.tokens} length ${args.length} causal ${args.causal}`);
  await labTiles(lab, capabilities, {
    kernels: tiled, sizes: numbers(args.sizes), tokens: Number(args.tokens), length: Number(args.length),
    width: Number(args.width), causal: args.causal, blockings: list(args.blockings),
    kinds: list(args.kinds) as PlanKind[],
  });
}
if (kernels.includes('decode')) {
  await labDecode(lab, capabilities, {
    keys: numbers(args.keys), heads: Number(args.heads), keyHeads: numbers(args['key-heads']),
    sizes: numbers(args.sizes), queries: Number(args.queries), layout: args.layout as 'bnhd'|'bhnd',
    variants: list(args.variants), workgroups: numbers(args.workgroups),
  });
}
process.exit(0); // Dawn keeps Node alive
