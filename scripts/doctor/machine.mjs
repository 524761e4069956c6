// @ts-check
// What the machine says of itself: the CPU, its features, and an NVIDIA GPU with its driver. Pure readers of what
// /proc, /sys and nvidia-smi say, and one function that reads them.
import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {availableParallelism, cpus} from 'node:os';
import {join} from 'node:path';

import {runTool} from '../setup_tfjs_node/run_tool.mjs';

/** What the kernels for an instruction set need of /proc/cpuinfo: x86-64-v4 and v3, as compilers understand them. */
const V3 = ['avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'movbe', 'abm'];
const V4 = [...V3, 'avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'];

/** Features that the report names. */
const TOLD = ['avx2', 'fma', 'avx512f', 'avx512_bf16', 'amx_bf16'];

/**
 * @typedef {object} Cpu
 * @property {string} model
 * @property {number} cores that this process may use
 * @property {string[] | undefined} features undefined: the system does not tell
 * @property {'avx512' | 'avx2' | 'portable' | undefined} instructionSet what the kernels can use
 */

/** @param {string} cpuinfo the text of /proc/cpuinfo @returns {Pick<Cpu, 'features' | 'instructionSet'>} */
export function readCpuFeatures(cpuinfo) {
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1].split(' '));
  if (flags.size === 0) {
    return {features: undefined, instructionSet: undefined};
  }
  const hasAll = (/** @type {string[]} */ names) => names.every(name => flags.has(name));
  return {
    features: TOLD.filter(name => flags.has(name)),
    instructionSet: hasAll(V4) ? 'avx512' : hasAll(V3) ? 'avx2' : 'portable',
  };
}

/**
 * @typedef {object} Gpu
 * @property {{name: string, driver: string, memory: string}[]} devices as nvidia-smi lists them
 * @property {number} cards NVIDIA's on the PCI bus
 * @property {boolean} hasDriver the kernel's part, /proc/driver/nvidia
 * @property {boolean} hasCuda libcuda.so.1 can be loaded
 * @property {string} [problem] why nvidia-smi lists none
 */

/** @param {string} output of nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader */
export function readSmi(output) {
  return output.trim().split('\n').filter(Boolean).map(line => {
    const [name, driver, memory] = line.split(',').map(text => text.trim());
    return {name, driver, memory};
  });
}

const read = (/** @type {string} */ path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

/** Display controllers of NVIDIA. */
function nvidiaCards() {
  const bus = '/sys/bus/pci/devices';
  const devices = existsSync(bus) ? readdirSync(bus) : [];
  return devices.filter(name => read(join(bus, name, 'vendor')).trim() === '0x10de' &&
      read(join(bus, name, 'class')).startsWith('0x03')).length;
}

/** Whether a shared library can be loaded here. */
export function canLoad(/** @type {string} */ library) {
  try {
    process.dlopen({exports: {}}, library);
  } catch (error) {
    // It is no Node addon, which is said only once it has been found and loaded.
    return !/cannot open shared object file/i.test(error instanceof Error ? error.message : '');
  }
  return true;
}

/** @returns {Cpu} */
export function readCpu() {
  const arm = process.arch === 'x64' ? {} : {instructionSet: /** @type {const} */ ('portable')};
  return {
    model: cpus()[0]?.model.trim() || process.arch, cores: availableParallelism(),
    ...readCpuFeatures(read('/proc/cpuinfo')), ...arm,
  };
}

/** @returns {Promise<Gpu>} */
export async function readGpu() {
  const {ok, stdout, output} = await runTool('nvidia-smi',
      ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader']);
  return {
    devices: ok ? readSmi(stdout) : [],
    cards: nvidiaCards(),
    hasDriver: existsSync('/proc/driver/nvidia/version'),
    hasCuda: process.platform === 'linux' && canLoad('libcuda.so.1'),
    ...!ok && {problem: /ENOENT/.test(output) ? 'there is no nvidia-smi' : output.trim().split('\n')[0]},
  };
}
