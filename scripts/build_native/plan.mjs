// @ts-check
// What the compiler is told: pure, so that unit tests see it. All paths are relative to the repository, so that no
// object names somebody's machine.
import {basename} from 'node:path';

/**
 * Instruction sets that have kernels of their own, by the name of their file in kernels/cpu. Only these files may use
 * them: which one runs is found out when the addon is loaded. Without the flags they hold nothing.
 * @type {Record<string, string[]>}
 */
export const INSTRUCTION_SETS = {
  'isa_avx512.cc': ['-march=x86-64-v4', '-mprefer-vector-width=512'],
  'isa_avx2.cc': ['-march=x86-64-v3'],
  'isa_portable.cc': [],
};

const COMMON = [
  '-std=c++17', '-fPIC', '-fvisibility=hidden', '-fvisibility-inlines-hidden', '-pthread', '-Wall', '-Wextra',
  // GCC's own header for AVX-512 trips it. The first is for Clang, which does not know it.
  '-Wno-unknown-warning-option', '-Wno-maybe-uninitialized',
  // Not -ffast-math: NaN and the infinities have meanings.
  '-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math',
];

/** The oldest C library that the prebuilt addon runs with, as in Debian 10 and RHEL 8. */
export const PREBUILT_GLIBC = '2.28';
export const PREBUILT_TARGET = `x86_64-linux-gnu.${PREBUILT_GLIBC}`;

/** What a .node file shows to the outside. Its own copy of the C++ library must not meet that of TensorFlow. */
export const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];
export const VERSION_SCRIPT = `{ global: ${EXPORTS.map(name => `${name};`).join(' ')} local: *; };\n`;

/** @typedef {'address' | 'undefined' | 'thread'} Sanitizer @type {Sanitizer[]} */
export const SANITIZERS = ['address', 'undefined', 'thread'];

/**
 * A variant of the build: its objects lie apart from those of others.
 * @typedef {object} Variant
 * @property {string} name of its folder
 * @property {string[]} compiler command and options
 * @property {string} arch of the CPUs it is for, as process.arch
 * @property {string} platform as process.platform
 * @property {Sanitizer[]} sanitizers
 * @property {boolean} isPrebuilt made with zig
 */

/** zig writes the names of CPUs with underscores. */
const forZig = (/** @type {string} */ flag) => flag.startsWith('-march=') ? flag.replaceAll('-', '_').replace('_', '-')
  : flag;

/** Flags of one source. @param {Variant} variant @param {string} source @returns {string[]} */
export function compileFlags({arch, sanitizers, isPrebuilt}, source) {
  const isa = arch === 'x64' ? INSTRUCTION_SETS[basename(source)] ?? [] : [];
  const sanitize = sanitizers.length > 0 ?
    [`-fsanitize=${sanitizers.join(',')}`, '-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g1', '-O2'] :
    ['-O3'];
  return [...COMMON, ...sanitize, ...isPrebuilt ? isa.map(forZig) : isa, ...isPrebuilt ? ['-fno-sanitize=all'] : []];
}

/**
 * @param {Variant} variant
 * @param {'addon' | 'program' | 'library'} kind
 * @param {string} versionScript path of a file with VERSION_SCRIPT
 * @returns {string[]} flags that stand before the objects
 */
export function linkFlags({platform, sanitizers, isPrebuilt}, kind, versionScript) {
  const flags = ['-pthread', ...sanitizers.length > 0 ? [`-fsanitize=${sanitizers.join(',')}`] : []];
  if (kind === 'program') {
    return [...flags, ...platform === 'linux' ? ['-ldl'] : []];
  }
  if (kind === 'library') {
    return [...flags, '-shared'];
  }
  if (platform === 'darwin') {
    return [...flags, '-bundle', '-undefined', 'dynamic_lookup'];
  }
  // A sanitizer wants to see what the C++ library does. zig has a static one of its own.
  const runtime = sanitizers.length > 0 || isPrebuilt ? [] : ['-static-libgcc', '-static-libstdc++'];
  return [...flags, '-shared', ...runtime, `-Wl,--version-script=${versionScript}`, '-Wl,-z,relro,-z,now', '-ldl',
    ...isPrebuilt ? ['-s'] : []];
}

/**
 * @typedef {{source: string, object: string, depends: string, args: string[]}} Step
 * @param {Variant} variant
 * @param {{sources: string[], includes: string[], defines: string[], objects: string}} what objects: a folder
 * @returns {Step[]} a compilation for each source
 */
export function compileSteps(variant, {sources, includes, defines, objects}) {
  return sources.map(source => {
    const object = `${objects}/${source.replace(/\.cc$/, '').replaceAll('/', '_')}.o`;
    const depends = object.replace(/o$/, 'd');
    return {
      source, object, depends,
      args: [...variant.compiler.slice(1), ...compileFlags(variant, source), ...defines.map(define => `-D${define}`),
        ...includes.flatMap(folder => ['-I', folder]), '-MMD', '-MF', depends, '-c', source, '-o', object],
    };
  });
}

/** The files that a compiler's list of dependencies (-MMD) names. @param {string} text @returns {string[]} */
export function parseDepends(text) {
  const start = text.search(/:\s/);
  const list = text.slice(start + 1).replaceAll('\\\n', ' ');
  return [...list.matchAll(/(?:\\ |\S)+/g)].map(([name]) => name.replaceAll('\\ ', ' ').replaceAll('$$', '$'));
}
