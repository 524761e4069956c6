// @ts-check
// What can go wrong on a user's machine, and what to do about it.

/** An error that the user can do something about. `remedy` says what; `output` is the end of what a tool wrote. */
export class SetupError extends Error {
  /** @param {string} message @param {string} remedy @param {string} [output] */
  constructor(message, remedy, output = '') {
    super(message);
    this.name = 'SetupError';
    this.remedy = remedy;
    this.output = output;
  }
}

export const REMEDIES = {
  compiler: 'Install a C++ compiler (Debian, Ubuntu: sudo apt-get install g++; Fedora: sudo dnf install gcc-c++), or ' +
      'name one in the environment variable CXX.',
  newerCompiler: 'The compiler must know C++17: install GCC 8 or Clang 7 or newer, or name one in the environment ' +
      'variable CXX.',
  python: 'Install Python 3.8 or newer with pip (Debian, Ubuntu: sudo apt-get install python3 python3-pip; Fedora: ' +
      'sudo dnf install python3 python3-pip). Or give a TensorFlow that is there: --tensorflow DIR.',
  disk: 'Free some space, or set XDG_CACHE_HOME to a folder on a larger disk. Nothing half done is left.',
  network: 'pip and npm must reach their registries: check the network, the proxy (HTTPS_PROXY) and the ' +
      'configuration of both. Or give a TensorFlow that is there: --tensorflow DIR.',
  wheel: 'Check that pip reaches its index. TensorFlow has wheels for Linux with glibc 2.27 or newer on x64 and ' +
      'arm64, and pip 20.3 or newer finds them (python3 -m pip install --upgrade pip). Or give a TensorFlow that is ' +
      'there: --tensorflow DIR.',
  headers: 'The TensorFlow lacks headers that tfjs-node needs: use the one of pip (--download).',
  processor: 'The libraries of pip\'s TensorFlow want a processor with AVX. Give one built for this machine: ' +
      '--tensorflow DIR.',
};

/** Signs in what the tools write, most telling first. @type {[RegExp, keyof typeof REMEDIES][]} */
const SIGNS = [
  [/No space left on device|ENOSPC|Errno 28|Disk quota exceeded|EDQUOT/, 'disk'],
  [/No module named '?(pip|zipfile)/, 'python'],
  // pip also says "no matching distribution" when it has not reached its index at all.
  [new RegExp('NewConnectionError|ConnectionError|ConnectTimeout|ReadTimeout|Temporary failure in name resolution|' +
      'Network is unreachable|ProxyError|SSLError|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|' +
      '40[37] (Client Error|Forbidden)|E40[37]'), 'network'],
  [/No matching distribution|Could not find a version|is not a supported wheel/, 'wheel'],
  [/unrecognized (command[ -]line )?option.*std=|invalid value '?c\+\+17/, 'newerCompiler'],
  [/fatal error: '?(tensorflow|tsl|xla)\/.*(No such file|not found)/, 'headers'],
  [/SIGILL|Illegal instruction/, 'processor'],
];

/** @param {string} output what a tool wrote. @returns {string | undefined} */
export function remedyFor(output) {
  const sign = SIGNS.find(([pattern]) => pattern.test(output));
  return sign && REMEDIES[sign[1]];
}

/**
 * The error for a tool that failed.
 * @param {string} what
 * @param {string} output of the tool
 * @param {{otherwise?: string, isShown?: boolean}} [options] the remedy where the output has no known sign; whether the
 *     user has seen the output already
 */
export function toolError(what, output, {otherwise = 'See what it wrote above.', isShown = false} = {}) {
  const end = output.trimEnd().split('\n').slice(-15).join('\n');
  return new SetupError(what, remedyFor(output) ?? otherwise, isShown ? '' : end);
}

/** An error of a system call (a full disk, a folder that may not be written) as the user should see it. */
export function explain(/** @type {unknown} */ error) {
  if (error instanceof SetupError || !(error instanceof Error) || !('code' in error)) {
    return error;
  }
  const remedy = remedyFor(`${error.code}`) ??
      (error.code === 'EACCES' || error.code === 'EPERM' || error.code === 'EROFS' ?
        'Run it as the user who owns the project, or make the folder writable.' : undefined);
  return remedy ? new SetupError(error.message, remedy) : error;
}
