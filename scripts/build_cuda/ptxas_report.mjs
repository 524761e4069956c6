// @ts-check
// node scripts/build_cuda/ptxas_report.mjs [folder]: what ptxas said of every kernel that was built, as a table; fails
// where a kernel spills, has local memory, or lost what makes it fast (wgmma serialised, setmaxnreg ignored).
import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import {fileURLToPath} from 'node:url';

/**
 * @typedef {object} KernelReport
 * @property {string} kernel
 * @property {string} architecture as ptxas writes it: sm_90a
 * @property {number} registers
 * @property {number} stack bytes of the stack frame, which lies in local memory
 * @property {number} spillStores bytes
 * @property {number} spillLoads bytes
 * @property {number} shared bytes of static shared memory
 * @property {number} local bytes of local memory
 * @typedef {object} Report
 * @property {KernelReport[]} kernels
 * @property {string[]} losses lines on what was lost, and warnings
 * @property {string[]} notes lines that change nothing much
 */

/**
 * C7508 to C7515: setmaxnreg ignored, wgmma serialised. C7517: a wait was put in, which serialises just as well.
 * C7519 only says that an arrive was put in where registers were touched.
 */
const NOTES = /\(C7519\)/;
const LOSSES = /Potential Performance Loss|\(C75\d\d\)|^ptxas (warning|error)/;

const bytes = (/** @type {string} */ line, /** @type {RegExp} */ pattern) => Number(pattern.exec(line)?.[1] ?? 0);

/** @param {string} text what `ptxas -v` wrote. @returns {Report} */
export function parseReport(text) {
  /** @type {KernelReport[]} */
  const kernels = [];
  /** @type {Set<string>} */
  const losses = new Set();
  /** @type {Set<string>} */
  const notes = new Set();
  /** The kernel whose properties come next; or a device function, which has no report of its own. */
  let current;
  for (const line of text.split('\n')) {
    const entry = /Compiling entry function '([^']+)' for '([^']+)'/.exec(line);
    if (entry) {
      current = {kernel: entry[1], architecture: entry[2], registers: NaN, stack: 0, spillStores: 0, spillLoads: 0,
        shared: 0, local: 0};
      kernels.push(current);
    } else if (/bytes stack frame/.test(line) && current) {
      // Functions that were not inlined have lines of their own: their frames count for whatever calls them.
      current.stack = Math.max(current.stack, bytes(line, /(\d+) bytes stack frame/));
      current.spillStores += bytes(line, /(\d+) bytes spill stores/);
      current.spillLoads += bytes(line, /(\d+) bytes spill loads/);
    } else if (/: Used \d+ registers/.test(line) && current) {
      current.registers = bytes(line, /Used (\d+) registers/);
      current.stack = Math.max(current.stack, bytes(line, /(\d+) bytes cumulative stack size/));
      current.shared = bytes(line, /(\d+)(?:\+\d+)? bytes smem/);
      current.local = bytes(line, /(\d+)(?:\+\d+)? bytes lmem/);
    } else if (NOTES.test(line)) {
      notes.add(line.trim());
    } else if (LOSSES.test(line)) {
      losses.add(line.trim());
    }
  }
  return {kernels, losses: [...losses], notes: [...notes]};
}

/** What is wrong with it. @param {Report} report @returns {string[]} */
export function problemsOf({kernels, losses}) {
  return [
    ...kernels.length === 0 ? ['no kernel was compiled'] : [],
    ...kernels.flatMap(({kernel, architecture, registers, stack, spillStores, spillLoads, local}) => [
      ...Number.isNaN(registers) ? ['is not reported on'] : [],
      ...spillStores + spillLoads > 0 ? [`spills ${spillStores} bytes and loads ${spillLoads}`] : [],
      ...stack + local > 0 ? [`has ${Math.max(stack, local)} bytes of local memory`] : [],
    ].map(what => `${kernel} on ${architecture} ${what}`)),
    ...losses,
  ];
}

/** @param {KernelReport[]} kernels @returns {string} a line for each */
export function tableOf(kernels) {
  const width = Math.max(6, ...kernels.map(({kernel}) => kernel.length));
  const rows = kernels.map(({kernel, architecture, registers, stack, spillStores, spillLoads, shared, local}) => [
    kernel.padEnd(width), architecture.padEnd(8),
    ...[registers, spillStores + spillLoads, Math.max(stack, local), shared].map(number => `${number}`.padStart(9)),
  ].join(' '));
  return [[`${'kernel'.padEnd(width)} arch    `, 'registers', '   spills', '    local', '   shared'].join(' '), ...rows]
      .join('\n');
}

/**
 * The reports of a folder, one file for each unit and architecture. @param {string} folder
 * @returns {{name: string, report: Report}[]}
 */
export function readReports(folder) {
  const names = existsSync(folder) ? readdirSync(folder).filter(name => /\.sm_\w+\.txt$/.test(name)).sort() : [];
  return names.map(name => ({
    name: basename(name, '.txt'), report: parseReport(readFileSync(join(folder, name), 'utf8')),
  }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.argv[2] ?? 'build/cuda';
  const reports = readReports(folder);
  console.log(tableOf(reports.flatMap(({report}) => report.kernels)));
  const problems = reports.flatMap(({name, report}) => problemsOf(report).map(problem => `${name}: ${problem}`));
  problems.forEach(problem => console.error(`FAILED  ${problem}`));
  reports.forEach(({name, report}) => report.notes.length && console.log(`${name}: ${report.notes.length} × C7519`));
  console.log(`${reports.length} reports, ${problems.length} problems`);
  process.exitCode = problems.length > 0 || reports.length === 0 ? 1 : 0;
}
