import {cudaSpeedPlot} from './core/cuda_plots.js';
import type {
  CudaAttentionRow, CudaDecodeRow, CudaEnvironment, CudaKind, CudaResultsFile,
} from './core/cuda_results.js';
import {
  COMPUTE_TYPES, cudaAttentionTable, cudaDecodeTable, cudaLongTable, cudaTimesAsFast, peerName,
} from './core/cuda_tables.js';
import {markdown, plots} from './figures_markdown.js';
import type {Svgs} from './figures_markdown.js';

/** Where, with what, when. */
function measuredOn({device, commit, date, pytorch, cudnn, driver}: CudaEnvironment): string {
  const versions = [pytorch && `PyTorch ${pytorch}`, cudnn && `cuDNN ${cudnn}`, driver && `driver ${driver}`];
  return `**${device}, CUDA**, commit ${commit}, ${date.slice(0, 10)} (${versions.filter(Boolean).join(', ')})`;
}

/** Measurements that are named when they are missing for the same reason. */
const MOST_NAMED = 3;

/** What was left out, and why. */
function missing({skipped = []}: {skipped?: Array<{label?: string; why: string}>}): string {
  return [...new Set(skipped.map(({why}) => why))].map(why => {
    const labels = skipped.filter(each => each.why === why).map(({label}) => label);
    const what = labels.length > MOST_NAMED ? `${labels.length} rows of others` : labels.join(', ');
    return ` Not measured: ${what} (${why}).`;
  }).join('');
}

function comparison(rows: readonly CudaAttentionRow[]): string {
  const peers = (['cudnn', 'flash-attention-2', 'efficient', 'math'] as const).flatMap((kind: CudaKind) => {
    const passes = (['forward', 'backward'] as const).flatMap(pass => {
      const found = cudaTimesAsFast(rows, kind, pass);
      return found ? [`${found.map(times => times.toFixed(2)).join('–')} ${pass}`] : [];
    });
    return passes.length > 0 ? [`${passes.join(', ')} times as fast as ${peerName(kind)}`] : [];
  });
  return peers.length > 0 ? ` The kernels alone are ${peers.join('; ')}.` : '';
}

export async function cudaAttentionSection(
    name: string, file: CudaResultsFile<CudaAttentionRow>, svgs: Svgs): Promise<string> {
  const {environment, results} = file;
  const sweep = results.filter(({series}) => series === 'sweep');
  const long = results.filter(({series}) => series === 'long');
  const tokens = sweep.length > 0 ? `, B·N = ${sweep[0].batch * sweep[0].length}, H·D = ` +
      `${sweep[0].heads * sweep[0].headSize}` : '';
  const lines = [
    `${measuredOn(environment)}: TFLOP/s by CUDA events${tokens}, beside the kernels of PyTorch's ` +
        'scaled_dot_product_attention on the same shapes in the same process, all checked against float64 before. ' +
        'PyTorch gets tensors of the compute type; this package\'s are float32, and "with conversions" counts what ' +
        `makes operands of them.${missing(file)}`,
    '',
    ...await plots(svgs, name, [
      ['bfloat16', 'speed in bfloat16 against sequence length', cudaSpeedPlot(results, 'bfloat16')],
      ['float32', 'speed in float32 against sequence length', cudaSpeedPlot(results, 'float32')],
    ]),
  ];
  for (const computeType of COMPUTE_TYPES) {
    const rows = sweep.filter(row => row.computeType === computeType);
    if (rows.length > 0) {
      lines.push(`\`computeType: '${computeType}'\`.${comparison(rows)}`, '', markdown(cudaAttentionTable(rows)), '');
    }
  }
  if (long.length > 0) {
    lines.push(`One head, ${long[0].computeType}; memory beyond the inputs.`, '', markdown(cudaLongTable(long)), '');
  }
  return lines.join('\n').trimEnd();
}

export function cudaDecodeSection(file: CudaResultsFile<CudaDecodeRow>): string {
  const {environment, results} = file;
  const shape = results.find(({kind}) => kind !== 'copy');
  return [
    `${measuredOn(environment)}: one query over ${shape?.keys ?? 0} keys, ${shape?.queryHeads ?? 0} query heads, ` +
        `${shape?.keyHeads ?? 0} key heads of ${shape?.headSize ?? 0}; GB/s of keys and values read once. A copy's ` +
        `are bytes read and written.${missing(file)}`,
    '', markdown(cudaDecodeTable(results)),
  ].join('\n');
}
