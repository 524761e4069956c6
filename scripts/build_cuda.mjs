// @ts-check
// npm run build:cuda: the CUDA kernels for all architectures, into build/cuda, where npm run build:native takes them
// from. Only what has changed is compiled. Fails where the compiler's report shows spills or what is as bad
// (build_cuda/ptxas_report.mjs).
//   --architectures=90a,80   only these, for trying things out
//   --only=name,…            only units whose names hold one of these
//   --list=path,…            other lists of units than kernels/cuda/instances.txt
//   --folder=build/…         where to
//   --pip                    fetches nvcc with pip where there is none
import {FOLDER, buildImages} from './build_cuda/build.mjs';
import {fetchNvcc, findNvcc, REMEDY} from './build_cuda/nvcc.mjs';
import {problemsOf, readReports, tableOf} from './build_cuda/ptxas_report.mjs';
import {explain, SetupError} from './setup_tfjs_node/errors.mjs';
import {endOnSignals} from './setup_tfjs_node/half_done.mjs';

const args = process.argv.slice(2);
const known = ['--architectures=', '--only=', '--list=', '--folder='];
const list = (/** @type {string} */ name) =>
  args.filter(arg => arg.startsWith(`--${name}=`)).map(arg => arg.slice(name.length + 3).split(',')).at(-1);
const unknown = args.filter(arg => arg !== '--pip' && !known.some(name => arg.startsWith(name)));
if (unknown.length > 0) {
  console.error(`build:cuda: expected ${known.join('…, ')}… or --pip, received ${unknown.join(' ')}`);
  process.exit(2);
}

endOnSignals();
try {
  const start = performance.now();
  const print = (/** @type {string} */ line) => console.log(line);
  const nvcc = await findNvcc() ?? (args.includes('--pip') ? await fetchNvcc(print) : undefined);
  if (!nvcc) {
    throw new SetupError('there is no nvcc of CUDA 13 or newer', REMEDY);
  }
  const folder = list('folder')?.[0] ?? FOLDER;
  const {compiled, sizes, kernels, output} = await buildImages(nvcc,
      {targets: list('architectures'), only: list('only'), lists: list('list'), folder});
  const reports = readReports(folder);
  console.log(tableOf(reports.flatMap(({report}) => report.kernels)));
  const kB = (/** @type {number} */ bytes) => `${(bytes / 1000).toFixed(1)} kB`;
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  console.log(`build:cuda: ${output}: ${kernels} kernels, ${compiled} compilations in ` +
      `${((performance.now() - start) / 1000).toFixed(1)} s by ${nvcc.path}`);
  console.log(`build:cuda: ${[...sizes].map(([target, size]) => `${target} ${kB(size)}`).join(', ')}; ` +
      `together ${kB(total)}`);
  const problems = reports.flatMap(({name, report}) => problemsOf(report).map(problem => `${name}: ${problem}`));
  problems.forEach(problem => console.error(`build:cuda: ${problem}`));
  process.exitCode = problems.length > 0 ? 1 : 0;
} catch (error) {
  const explained = explain(error);
  if (!(explained instanceof SetupError)) {
    throw error;
  }
  console.error([explained.output, `build:cuda: ${explained.message}`, explained.remedy].filter(Boolean).join('\n'));
  process.exitCode = 1;
}
