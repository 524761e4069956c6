import type {Table} from './core/tables.js';

export const RESULTS = 'benchmarks/results';

/** Plots by file name. */
export type Svgs = Map<string, string>;

export function markdown({header, rows}: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const isNumber = header.map((_, column) => rows.every(row => /^[\d.—%-]*$/.test(row[column])));
  return [line(header), `|${isNumber.map(right => right ? '--:' : '---').join('|')}|`, ...rows.map(line)].join('\n');
}

/** The plots that there are, as lines of Markdown; each goes into `svgs`. */
export async function plots(
    svgs: Svgs, name: string, drawn: Array<[string, string, Promise<string|undefined>]>): Promise<string[]> {
  const lines: string[] = [];
  for (const [what, alternative, plot] of drawn) {
    const svg = await plot;
    if (svg !== undefined) {
      svgs.set(`${name}-${what}.svg`, `${svg}\n`);
      lines.push(`![${alternative}](${RESULTS}/${name}-${what}.svg)`, '');
    }
  }
  return lines;
}
