import type {CommandName} from '../core/suite_options.js';

export type PageCommand = Exclude<CommandName, 'peers'|'cpu'>;
type Options = Readonly<Record<string, string>>;

/** A browser shares its GPU with the desktop, which should stay usable: smaller than a machine of its own gets. */
const ON_A_GPU: Record<PageCommand, Options> = {
  bench: {lengths: '4096,1024,2048', tokens: '4096', width: '1024', heads: '0', causal: 'false'},
  decode: {keys: '4096,16384,32768', keyHeads: '8', copy: '256'},
  host: {batches: '20'},
  'train-bench': {context: '512', layers: '4', heads: '4', width: '256', batch: '4', steps: '10', warmUp: '3'},
};

/** SwiftShader and its like: enough to see that everything works. */
const EMULATED: Record<PageCommand, Options> = {
  bench: {
    lengths: '256,128', sizes: '32', tokens: '256', width: '64', heads: '0', causal: 'false', variants: 'float32',
  },
  decode: {keys: '256,512', heads: '4', keyHeads: '2', size: '32', copy: '8', variants: 'float32'},
  host: {batches: '5', calls: '20', variants: 'float32'},
  'train-bench': {context: '64', layers: '1', heads: '2', width: '32', batch: '2', steps: '3', warmUp: '1'},
};

/** What differs in a page from `OPTIONS`. */
export function pageDefaults(command: PageCommand, hardware: boolean): Options {
  return (hardware ? ON_A_GPU : EMULATED)[command];
}
