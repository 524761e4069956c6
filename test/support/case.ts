import type {ReferenceProblem, Shape4} from './reference_problem.js';

/** How the inputs are drawn: standard normal, logits in the hundreds, or normal with NaN and ±∞ put in. */
export type Values = 'normal'|'large'|'nan'|'infinite';

/** The mask of a case: its own four axes and how many of its entries are false. */
export interface MaskSpec {
  shape: Shape4;
  /** Share of entries that are false. 1 masks everything. */
  hidden: number;
}

/** The bias of a case: its own four axes; standard normal, with three in ten entries −∞, or in the hundreds. */
export interface BiasSpec {
  shape: Shape4;
  values: 'normal'|'withMinusInfinity'|'large';
}

type Drawn = 'alibiSlopes'|'bias'|'biasShape'|'mask'|'queryLengths'|'keyLengths'|'sinks';

/** A call of attention as plain data; `caseInputs` draws its numbers. */
export interface Case extends Omit<ReferenceProblem, Drawn> {
  name: string;
  values: Values;
  maskSpec?: MaskSpec;
  biasSpec?: BiasSpec;
  /** Slopes [Hq] or [B,Hq]. */
  alibi?: 'head'|'batch';
  /** Which of the two have lengths of their own. */
  lengths?: 'query'|'key'|'both';
  sinks?: boolean;
  /** Seed of the inputs. */
  inputSeed: number;
}

/** What a case says where it is not the default: 1 batch, 2 heads of 64, bnhd, bottom-right, scale 1/√D, normal. */
export type Row = Partial<Omit<Case, 'name'|'inputSeed'>>&{queryLength: number, keyLength: number};

export function makeCase(row: Row, inputSeed: number): Case {
  const filled = {
    batch: 1, queryHeads: 2, keyHeads: row.queryHeads ?? 2, headSize: 64, layout: 'bnhd' as const, causal: false,
    causalAlignment: 'bottom-right' as const, dropoutP: 0, seed: 0, values: 'normal' as const, inputSeed, ...row,
  };
  const valueSize = row.valueSize ?? filled.headSize;
  const softmaxScale = row.softmaxScale ?? 1 / Math.sqrt(filled.headSize);
  const complete = {...filled, valueSize, softmaxScale};
  return {...complete, name: nameOf(complete)};
}

function nameOf(c: Omit<Case, 'name'>): string {
  const parts = [
    `B${c.batch}`, `Nq${c.queryLength}`, `Nk${c.keyLength}`, `Hq${c.queryHeads}`, `Hkv${c.keyHeads}`,
    `D${c.headSize}`, `Dv${c.valueSize}`, c.layout,
    c.causal ? `causal ${c.causalAlignment}` : c.windowSize || c.alibi ? c.causalAlignment : '',
    c.windowSize ? `window [${c.windowSize}]` : '',
    c.softcap ? `softcap ${c.softcap}` : '',
    c.alibi ? `alibi by ${c.alibi}` : '',
    c.biasSpec ? `bias [${c.biasSpec.shape}] ${c.biasSpec.values}` : '',
    c.maskSpec ? `mask [${c.maskSpec.shape}] hiding ${c.maskSpec.hidden}` : '',
    c.lengths ? `lengths of ${c.lengths}` : '',
    c.sinks ? 'sinks' : '',
    c.dropoutP > 0 ? `dropout ${c.dropoutP}` : '',
    `scale ${c.softmaxScale.toPrecision(3)}`, c.values,
  ];
  return parts.filter(part => part !== '').join(' ');
}

/** The options that a case makes use of, for saying what a run covered. */
export function optionsOf(c: Case): string[] {
  const uses: Record<string, boolean> = {
    'bhnd': c.layout === 'bhnd',
    'grouped heads': c.queryHeads !== c.keyHeads,
    'Dv ≠ D': c.valueSize !== c.headSize,
    'causal': c.causal,
    'top-left': c.causalAlignment === 'top-left',
    'window': c.windowSize !== undefined,
    'softcap': (c.softcap ?? 0) > 0,
    'ALiBi': c.alibi !== undefined,
    'bias': c.biasSpec !== undefined,
    'mask': c.maskSpec !== undefined,
    'lengths': c.lengths !== undefined,
    'sinks': c.sinks === true,
    'dropout': c.dropoutP > 0,
    'large scores': c.values === 'large',
    'NaN and ∞': c.values === 'nan' || c.values === 'infinite',
  };
  return Object.keys(uses).filter(option => uses[option]);
}
