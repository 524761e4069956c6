import {makeCase} from './case.js';
import type {Case} from './case.js';
import {basicRows} from './case_rows.js';
import {optionRows} from './option_rows.js';

export type {Case} from './case.js';
export {caseInputs, referenceProblem} from './case_inputs.js';
export type {CaseInputs} from './case_inputs.js';

/** The case table that drives every backend. `fresh` is added to every input seed: other numbers, same shapes. */
export function caseTable(fresh = 0): Case[] {
  return [...basicRows(), ...optionRows()].map((row, place) => makeCase(row, 1000 + place + fresh));
}
