import {existsSync, mkdirSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

import type {Environment, ResultsFile, Row, Skipped} from './core/results.js';
import {slug} from './core/slug.js';

/** What tells two rows of a suite apart. */
const IDENTITY = [
  'kind', 'pass', 'batch', 'heads', 'length', 'headSize', 'causal', 'computeType', 'plan', 'keys', 'queryHeads',
  'keyHeads', 'numSplits', 'context', 'layers', 'width', 'backend', 'native', 'layout',
];

function identity(row: Row): string {
  const fields = row as unknown as Record<string, unknown>;
  return JSON.stringify(IDENTITY.map(name => fields[name]));
}

/**
 * The results file of a suite on a device, written anew with every row, so that whatever ends a run leaves what was
 * measured before. Rows of the same commit that the file has already stay until they are measured again.
 */
export class ResultsWriter {
  private readonly file: string;
  private readonly contents: ResultsFile<Row>;

  constructor(folder: string, suite: string, private readonly environment: Environment) {
    mkdirSync(folder, {recursive: true});
    this.file = join(folder, `${suite}-${slug(environment.device)}.json`);
    const old = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')) as ResultsFile<Row> : undefined;
    const isSame = old?.environment.commit === environment.commit && old.environment.device === environment.device;
    this.contents = {
      environment: {...isSame ? old.environment : {}, ...environment},
      results: isSame ? old.results : [],
      skipped: isSame ? old.skipped ?? [] : [],
    };
  }

  get path(): string {
    return this.file;
  }

  /** What else took part, by name. */
  tookPart(environment: Partial<Environment>): void {
    this.contents.environment = {...this.contents.environment, ...environment, ...this.environment};
    this.write();
  }

  add(label: string, row: Row): void {
    const key = identity(row);
    this.contents.results = [...this.contents.results.filter(other => identity(other) !== key), row];
    this.contents.skipped = this.contents.skipped!.filter(other => other.label !== label);
    this.write();
  }

  remove(rows: readonly Row[]): void {
    const keys = new Set(rows.map(identity));
    this.contents.results = this.contents.results.filter(row => !keys.has(identity(row)));
    this.write();
  }

  skip(skipped: Skipped): void {
    this.contents.skipped = [...this.contents.skipped!.filter(({label}) => label !== skipped.label), skipped];
    this.write();
  }

  private write(): void {
    const part = `${this.file}.part`;
    writeFileSync(part, `${JSON.stringify(this.contents, null, 1)}\n`);
    renameSync(part, this.file);
  }
}
