// @ts-check
// Reads a package's binding.gyp: what its addon is built from. A .gyp file is a Python literal: dictionaries, lists and
// strings, with comments, trailing commas and neighbouring strings that are one.

const TOKEN = /\s+|#[^\n]*|([{}[\]:,])|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\d+)|(True|False|None)/sy;
const CONSTANTS = {True: true, False: false, None: null};

/** @typedef {{kind: string, value?: unknown}} Token @param {string} text @returns {Token[]} */
function tokens(text) {
  const list = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const start = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) {
      const line = text.slice(0, start).split('\n').length;
      throw new Error(`binding.gyp: expected a Python literal, received ${text.slice(start, start + 9)}, line ${line}`);
    }
    const [, mark, single, double, number, constant] = match;
    const string = single ?? double;
    if (mark) {
      list.push({kind: mark});
    } else if (string !== undefined) {
      // As in Python, a backslash before anything but a quote or a backslash stays.
      list.push({kind: 'value', value: string.replace(/\\(['"\\])/g, '$1')});
    } else if (number ?? constant) {
      const value = number ? Number(number) : CONSTANTS[/** @type {keyof typeof CONSTANTS} */ (constant)];
      list.push({kind: 'value', value});
    }
  }
  return list;
}

/** @param {string} text @returns {any} what the file says, as plain JavaScript */
export function parseGyp(text) {
  const list = tokens(text);
  let at = 0;

  function expect(/** @type {string} */ kind) {
    const token = list[at++];
    if (token?.kind !== kind) {
      throw new Error(`binding.gyp: expected ${kind}, received ${token?.kind ?? 'the end'}`);
    }
    return token;
  }

  /** The parts between an opening and a closing bracket, with a comma after the last or without. */
  function parts(/** @type {string} */ closing, /** @type {() => void} */ part) {
    at++;
    while (list[at]?.kind !== closing) {
      part();
      if (list[at]?.kind !== closing) {
        expect(',');
      }
    }
    at++;
  }

  /** @returns {any} */
  function value() {
    if (list[at]?.kind === '{') {
      /** @type {Record<string, unknown>} */
      const entries = {};
      parts('}', () => {
        const key = String(expect('value').value);
        expect(':');
        entries[key] = value();
      });
      return entries;
    }
    if (list[at]?.kind === '[') {
      /** @type {unknown[]} */
      const items = [];
      parts(']', () => items.push(value()));
      return items;
    }
    let result = expect('value').value;
    while (typeof result === 'string' && typeof list[at]?.value === 'string') {
      result += String(list[at++]?.value);
    }
    return result;
  }

  const result = value();
  if (at < list.length) {
    throw new Error(`binding.gyp: expected the end, received ${list[at]?.kind}`);
  }
  return result;
}

/**
 * What the compiler needs to know of the first target. The libraries are not read: they are those of libtensorflow.
 * @param {string} text of binding.gyp
 * @param {Record<string, string>} variables gyp's own, as module_root_dir
 * @returns {{sources: string[], includeDirs: string[], defines: string[]}}
 */
export function readBindingGyp(text, variables) {
  const gyp = parseGyp(text);
  const target = gyp.targets?.[0];
  /** @type {Record<string, string>} */
  const known = {...gyp.variables, ...variables};
  /** @returns {string} */
  const expand = (/** @type {string} */ string) => string.replace(/<\((\w+)\)/g, (_, /** @type {string} */ name) => {
    if (typeof known[name] !== 'string') {
      throw new Error(`binding.gyp: the variable ${name} is not known`);
    }
    return expand(known[name]);
  });
  const strings = (/** @type {unknown} */ list) => (Array.isArray(list) ? list : []).map(item => expand(String(item)));
  const result = {
    sources: strings(target?.sources),
    includeDirs: strings(target?.include_dirs),
    defines: [...strings(gyp.defines), ...strings(target?.defines)],
  };
  if (result.sources.length === 0) {
    throw new Error('binding.gyp: the first target has no sources');
  }
  return result;
}
