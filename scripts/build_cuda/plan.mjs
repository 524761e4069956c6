// @ts-check
// What nvcc is told, and the source that carries its results into the addon: pure, so that unit tests see it.
import {SetupError} from '../setup_tfjs_node/errors.mjs';

/** Machine code is made for these. `a`: with instructions that only this one has. */
export const ARCHITECTURES = ['80', '86', '89', '90a', '100', '120'];

/**
 * PTX is made for this one, for what comes later. Not for the highest: what is not in the list but lies in between, as
 * 11.0, can take only PTX for an older one.
 */
export const PTX = '100';

/**
 * @typedef {object} Unit
 * @property {string} name
 * @property {string} source
 * @property {string[]} targets architectures, and `ptx`
 * @property {string[]} defines
 */

const remedy = 'A line is: unit | source | architectures | defines.';

/**
 * Reads a list of units.
 * @param {string} text
 * @param {string} path of the list; sources are relative to its folder
 * @returns {Unit[]}
 */
export function parseInstances(text, path) {
  const folder = path.replace(/[^/]*$/, '');
  const seen = new Set();
  return text.split('\n').flatMap((line, n) => {
    if (/^\s*(#|$)/.test(line)) {
      return [];
    }
    const [name, source, architectures, defines = '', ...rest] = line.split('|').map(field => field.trim());
    const where = `${path}, line ${n + 1}`;
    const targets = architectures === 'all' ? [...ARCHITECTURES, 'ptx'] : (architectures ?? '').split(/\s*,\s*/);
    const unknown = targets.filter(target => target !== 'ptx' && !ARCHITECTURES.includes(target));
    if (!/^\w+$/.test(name) || !/\.cu$/.test(source ?? '') || unknown.length > 0 || rest.length > 0) {
      throw new SetupError(`${where} is no unit: ${line.trim()}`, remedy);
    }
    if (seen.has(name)) {
      throw new SetupError(`${where}: there is a unit ${name} already`, 'Give each unit a name of its own.');
    }
    seen.add(name);
    return [{name, source: folder + source, targets, defines: defines.split(/\s+/).filter(Boolean)}];
  });
}

/**
 * @typedef {object} Step
 * @property {Unit} unit
 * @property {string} target
 * @property {string} image the result
 * @property {string} report what ptxas said of it
 * @property {string} depends
 * @property {string[]} args
 * @param {Unit} unit
 * @param {string} folder of the results
 * @returns {Step[]} a compilation for each target
 */
export function compileSteps(unit, folder) {
  return unit.targets.map(target => {
    const base = `${folder}/${unit.name}.${target === 'ptx' ? `ptx_${PTX}` : `sm_${target}`}`;
    const code = target === 'ptx' ? `arch=compute_${PTX},code=compute_${PTX}` :
      `arch=compute_${target},code=sm_${target}`;
    return {
      unit, target, image: `${base}.fatbin`, report: `${base}.txt`, depends: `${base}.d`,
      args: ['-std=c++17', '-O3', '-fatbin', `-gencode=${code}`, '-Xptxas=-v', '--compress-mode=size', '-Ikernels',
        ...unit.defines.map(define => `-D${define}`), '-MD', '-MF', `${base}.d`, '-o', `${base}.fatbin`, unit.source],
    };
  });
}

/** 13000 of what `nvcc --version` says. @param {string} text @returns {number | undefined} */
export function toolkitVersion(text) {
  const match = /release (\d+)\.(\d+)/.exec(text);
  return match ? Number(match[1]) * 1000 + Number(match[2]) * 10 : undefined;
}

/** Kind, major and minor of a target, as kernels/cuda/images.h has them. @param {string} target */
export function imageOf(target) {
  const number = Number.parseInt(target === 'ptx' ? PTX : target);
  const kind = target === 'ptx' ? 'ptx' : target.endsWith('a') ? 'exact' : 'family';
  return {kind, major: Math.floor(number / 10), minor: number % 10};
}

/**
 * The source with the table of images. The assembler takes their bytes from the files, and no compiler notices when
 * these change: so their hash is in it.
 * @param {object} what
 * @param {number} what.toolkit
 * @param {string[]} what.units names
 * @param {{unit: number, target: string, path: string}[]} what.images
 * @param {{kernel: string, unit: number}[]} what.kernels
 * @param {string} what.hash of all images
 * @returns {string}
 */
export function imagesSource({toolkit, units, images, kernels, hash}) {
  const sorted = [...kernels].sort((a, b) => a.kernel < b.kernel ? -1 : 1);
  const twice = sorted.find(({kernel}, n) => kernel === sorted[n + 1]?.kernel);
  if (twice) {
    throw new SetupError(`kernel ${twice.kernel} is in more than one unit`, 'Give each kernel a name of its own.');
  }
  const name = (/** @type {number} */ n) => `flash_attention_image_${n}`;
  const lines = [
    `// Made by scripts/build_cuda.mjs: ${units.length} units, images of ${hash}.`,
    '#include "cuda/images.h"',
    '',
  ];
  if (images.length > 0) {
    lines.push('asm(".pushsection .rodata,\\"a\\"\\n"');
    images.forEach(({path}, n) => {
      const label = `    ".balign 16\\n${name(n)}:\\n.incbin \\"${path}\\"\\n${name(n)}_end:\\n"`;
      lines.push(label);
    });
    lines.push('    ".popsection\\n");', '');
    images.forEach((_, n) => lines.push(`extern "C" __attribute__((visibility("hidden"))) const unsigned char ` +
        `${name(n)}[], ${name(n)}_end[];`));
  }
  lines.push('', 'namespace flash_attention {', '', 'const Images& embedded_images() {');
  if (images.length > 0) {
    lines.push('  static const Image images[] = {', ...images.map(({unit, target}, n) => {
      const {kind, major, minor} = imageOf(target);
      return `      {${unit}, ImageKind::${kind}, ${major}, ${minor}, ${name(n)}, ` +
          `static_cast<size_t>(${name(n)}_end - ${name(n)})},`;
    }), '  };');
    lines.push('  static const KernelPlace kernels[] = {',
        ...sorted.map(({kernel, unit}) => `      {"${kernel}", ${unit}},`), '  };');
    lines.push(`  static const Images table = {${toolkit}, ${units.length}, images, ${images.length}, kernels, ` +
        `${sorted.length}};`);
  } else {
    lines.push('  static const Images table;');
  }
  lines.push('  return table;', '}', '', '}  // namespace flash_attention', '');
  return lines.join('\n');
}
