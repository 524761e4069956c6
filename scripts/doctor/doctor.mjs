// @ts-check
// npx tfjs-flash-attention doctor: what is here, which kernels it gives, and what to do about what is missing.
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {runTool} from '../setup_tfjs_node/run_tool.mjs';
import {findings, render} from './findings.mjs';
import {readCpu, readGpu} from './machine.mjs';

/** @typedef {import('./findings.mjs').Facts} Facts */

const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));
const PROBE = fileURLToPath(new URL('probe.mjs', import.meta.url));

/** A driver that hangs is a finding too. */
const TIMEOUT_S = 60;

/** @param {string} what @param {string} project @returns {Promise<any>} */
async function probe(what, project) {
  const node = process.execPath;
  const {ok, stdout, output} = await runTool(node, [PROBE, what, project], {cwd: project, timeout: TIMEOUT_S * 1000});
  const line = stdout.trimEnd().split('\n').at(-1);
  try {
    return JSON.parse(ok && line ? line : '');
  } catch {
    const end = output.trim().split('\n').at(-1);
    return {error: /ended by SIGKILL/.test(output) ? `no answer in ${TIMEOUT_S} s` : end || 'it ended without a word'};
  }
}

/** @param {string} project @returns {Promise<Facts>} */
export async function gatherFacts(project) {
  const {version} = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  const report = /** @type {any} */ (process.report);
  report.excludeNetwork = true; // it would look up names
  const glibc = report.getReport().header.glibcVersionRuntime;
  const [gpu, addon, cpuBackend, wasm, tensorflow, webgpu] = await Promise.all([
    readGpu(), ...['addon', 'cpu', 'wasm', 'tensorflow', 'webgpu'].map(what => probe(what, project)),
  ]);
  return {
    package: {version, dir: PACKAGE}, node: {version: process.version, platform: process.platform, arch: process.arch,
      ...glibc && {glibc}},
    cpu: readCpu(), gpu, addon, cpuBackend, wasm, tensorflow, webgpu,
  };
}

/** @param {{json: boolean}} request @param {{project: string, write?: (text: string) => void}} place */
export async function doctor({json}, {project, write = text => process.stdout.write(text)}) {
  const facts = await gatherFacts(project);
  const sections = findings(facts);
  write(json ? `${JSON.stringify({facts, sections}, null, 1)}\n` : `${render(sections).join('\n')}\n`);
}
