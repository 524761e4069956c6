// @ts-check
// What the facts mean to a user, line by line: pure, so that the unit tests see machines that are not there.

/**
 * @typedef {object} AddonFacts what became of loading the addon; see src/backends/native
 * @property {string} [path] where it was loaded from
 * @property {string} [instructionSet]
 * @property {number} [threads]
 * @property {CudaFacts} [cuda]
 * @property {boolean} [off] switched off by FLASH_ATTENTION_NATIVE
 * @property {string} [error] all causes and their remedies
 *
 * @typedef {object} CudaFacts as nativeReport().cuda has them
 * @property {string} [driver] the CUDA that it is for
 * @property {string} [kernels] the CUDA that made them
 * @property {boolean} contextEvents
 * @property {{device: string, name: string, computeCapability: string, code?: string}[]} devices
 * @property {string} [problem]
 *
 * @typedef {object} BackendFacts a tfjs backend, tried in a process of its own
 * @property {string} [version] of its package
 * @property {string} [dir] where it is
 * @property {boolean} [computes] a small call gave what it should
 * @property {string} [kernel] 'native' or 'TypeScript'
 * @property {string} [error]
 *
 * @typedef {{name?: string, tensorflow?: string, library?: string, isCuda?: boolean, onGpu?: boolean}} OfTensorFlow
 * @typedef {BackendFacts & OfTensorFlow} TensorFlowFacts name: of the npm package; tensorflow: version
 *
 * @typedef {object} WebGPUFacts
 * @property {string} [version] of the package webgpu
 * @property {boolean} [hasBackend] tfjs-backend-webgpu is installed
 * @property {string} [error]
 * @property {WebGPUReport} [report] of enableWebGPU
 *
 * @typedef {object} WebGPUReport what is used of it
 * @property {string} adapter
 * @property {boolean} hardware
 * @property {string[]} features
 * @property {unknown[]} matrixConfigurations
 * @property {{name: string, wouldGive: string, remedy?: string}[]} missing
 *
 * @typedef {object} Facts
 * @property {{version: string, dir: string}} package
 * @property {{version: string, platform: string, arch: string, glibc?: string}} node
 * @property {import('./machine.mjs').Cpu} cpu
 * @property {import('./machine.mjs').Gpu} gpu
 * @property {AddonFacts} addon
 * @property {TensorFlowFacts} tensorflow
 * @property {WebGPUFacts} webgpu
 * @property {BackendFacts} cpuBackend
 * @property {BackendFacts} wasm
 *
 * @typedef {'ok' | 'missing' | 'note'} State missing: something that would help is not there; note: good to know
 * @typedef {{title: string, state: State, text: string, remedy?: string}} Finding
 */

const SETUP = 'npx tfjs-flash-attention setup-tfjs-node';

/** @param {string} title @param {State} state @param {string} text @param {string} [remedy] @returns {Finding} */
const finding = (title, state, text, remedy) => ({title, state, text, ...remedy && {remedy}});

/** @param {Facts} facts @returns {Finding[]} */
function machine({cpu, node}) {
  const features = cpu.features === undefined ? 'features not told by this system' :
    cpu.features.join(', ') || 'no vector features that the kernels know';
  const uses = {avx512: 'AVX-512', avx2: 'AVX2', portable: 'portable code'}[cpu.instructionSet ?? 'portable'];
  const cores = `${cpu.cores} core${cpu.cores === 1 ? '' : 's'} for this process`;
  const list = [
    finding('Node', 'ok', `${node.version} on ${node.platform} ${node.arch}` +
        (node.glibc ? `, glibc ${node.glibc}` : '')),
    finding('CPU', 'ok', `${cpu.model}, ${cores}; ${features}`),
  ];
  if (cpu.instructionSet) {
    list.push(finding('Instructions', cpu.instructionSet === 'portable' ? 'note' : 'ok',
        `the native kernels use ${uses}`));
  }
  return list;
}

/** @param {Facts} facts @returns {Finding[]} */
function addon({addon: {path, instructionSet, threads, off, error}}) {
  if (off) {
    return [finding('Addon', 'missing', 'switched off by FLASH_ATTENTION_NATIVE', 'Unset it to use the addon.')];
  }
  if (path === undefined) {
    const [first, ...rest] = (error ?? 'it does not load').split('\n');
    return [finding('Addon', 'missing', first, rest.join('\n') || undefined)];
  }
  const runs = [instructionSet, threads && `${threads} thread${threads === 1 ? '' : 's'}`].filter(Boolean);
  return [finding('Addon', 'ok', `${path}${runs.length > 0 ? ` (${runs.join(', ')})` : ''}`)];
}

/**
 * The addon's CUDA kernels and the devices that they fit. Nothing where no NVIDIA GPU is seen.
 * @param {Facts} facts @returns {Finding[]}
 */
function cuda({addon: {cuda: facts}, gpu: {devices}}) {
  if (!facts || (devices.length === 0 && facts.devices.length === 0)) {
    return [];
  }
  const {driver, kernels: made, contextEvents, problem} = facts;
  const list = facts.devices.map(({device, name, computeCapability, code}) =>
    finding('CUDA', code ? 'ok' : 'missing', `${device} is ${name}, ${computeCapability}; ` +
        (code ? `the addon's kernels for it: ${code}` : 'the addon has no kernels for it')));
  if (problem) {
    list.push(finding('CUDA', 'missing', problem,
        made === undefined ? 'In a checkout: npm run build:cuda -- --pip && npm run build:native' : undefined));
  } else {
    list.push(finding('CUDA', 'ok', `driver for CUDA ${driver}, kernels made with CUDA ${made}`));
  }
  if (driver !== undefined && !contextEvents) {
    list.push(finding('CUDA', 'note', 'calls on TensorFlow\'s GPU wait for all that it was given before, and for ' +
        'their own end', 'A driver for CUDA 12.4 or newer puts them in order without.'));
  }
  return list;
}

/** @param {Facts} facts @returns {Finding[]} */
function gpu({gpu: {devices, cards, hasDriver, hasCuda, problem}}) {
  if (devices.length > 0) {
    const list = devices.map(({name, driver, memory}) => finding('GPU', 'ok', `${name}, ${memory}, driver ${driver}`));
    return hasCuda ? list : [...list, finding('CUDA', 'missing', 'libcuda.so.1 cannot be loaded',
        'It belongs to the driver: install the driver\'s library package (Debian: libcuda1), and in a container pass ' +
        'the driver\'s capability "compute" on.')];
  }
  if (cards > 0 || hasDriver) {
    const what = cards > 0 ? `${cards} NVIDIA card${cards > 1 ? 's' : ''} on the bus` : 'NVIDIA\'s driver';
    return [finding('GPU', 'missing', `${what}, but no GPU that can be used: ${problem ?? 'nvidia-smi lists none'}`,
        hasDriver ? 'In a container, pass the GPU and nvidia-smi on (NVIDIA Container Toolkit). Else see nvidia-smi.' :
          'Install NVIDIA\'s driver.')];
  }
  return [finding('GPU', 'note', 'no NVIDIA GPU or driver is seen; other GPUs are seen through WebGPU only')];
}

/** @param {Facts} facts @returns {Finding[]} */
function tensorflow({tensorflow: facts, gpu: {devices}}) {
  const {name, version, dir, error, isCuda, onGpu, library} = facts;
  if (name === undefined) {
    return [finding('tfjs-node', 'missing', 'not installed in this project', SETUP)];
  }
  const where = `${name} ${version} in ${dir}`;
  if (error !== undefined) {
    return [finding('tfjs-node', 'missing', `${where} does not load: ${error}`,
        `${SETUP}${name.endsWith('-gpu') ? ' --gpu' : ''}`)];
  }
  const built = isCuda ? 'built for CUDA' : 'built for the CPU';
  const list = [
    finding('tfjs-node', 'ok', where),
    finding('TensorFlow', 'ok', `${facts.tensorflow ?? 'version not told'}, ${built}, computes on the ` +
        `${onGpu ? 'GPU' : 'CPU'}${library ? `; ${library}` : ''}`),
  ];
  if (devices.length > 0 && !onGpu) {
    list.push(finding('TensorFlow', 'note', 'there is a GPU that it does not use', `${SETUP} --gpu`));
  }
  return list;
}

/** @param {Facts} facts @returns {Finding[]} */
function webgpu({webgpu: {version, hasBackend, error, report}}) {
  const lacking = [version === undefined && 'webgpu', !hasBackend && '@tensorflow/tfjs-backend-webgpu'].filter(Boolean);
  if (lacking.length > 0) {
    return [finding('WebGPU', 'missing', `${lacking.join(' and ')} ${lacking.length > 1 ? 'are' : 'is'} not installed`,
        `npm install ${lacking.join(' ')}`)];
  }
  if (!report) {
    // Errors of this package have the remedy behind a semicolon.
    const [text, ...remedy] = (error ?? 'it does not start').replace(/^flashAttention: /, '').split('; ');
    return [finding('WebGPU', 'missing', `${text}; webgpu ${version}`, remedy.join('; '))];
  }
  const shown = report.features.filter(name => /f16|subgroup|timestamp/.test(name));
  const list = [finding('WebGPU', report.hardware ? 'ok' : 'note',
      `${report.adapter}${report.hardware ? '' : ', an emulation on the CPU'}; webgpu ${version}; ` +
      (shown.join(', ') || 'no features beyond the core'))];
  for (const {name, wouldGive, remedy} of report.hardware ? report.missing : []) {
    list.push(finding('WebGPU', 'note', `without ${name}, which would give ${wouldGive}`, remedy));
  }
  return list;
}

/** Kinds of plans (ARCHITECTURE.md) that a device has. @param {WebGPUReport} report */
function planKinds({features, matrixConfigurations}) {
  const kinds = ['simt', ...features.includes('subgroups') ? ['subgroup'] : [], 'decode'];
  const hasMatrices = features.includes('shader-f16') && matrixConfigurations.length > 0;
  return hasMatrices ? `${kinds.join(', ')}; with computeType float16 or bfloat16 matrix` : kinds.join(', ');
}

/**
 * Which kernel a call would run on each backend of tfjs.
 * @param {Facts} facts
 * @returns {Finding[]}
 */
function kernels(facts) {
  const {addon: {path, instructionSet, cuda}, wasm, cpuBackend, webgpu: {report}, tensorflow: {name, error}} = facts;
  const slow = 'the TypeScript kernel';
  const remedy = path === undefined ? 'With the addon it would be C++: see Addon.' : undefined;
  /** @type {(title: string, backend: BackendFacts, what: string) => Finding} */
  const tried = (title, backend, what) => {
    if (backend.error !== undefined || backend.computes === false) {
      return finding(title, 'missing', `does not work: ${backend.error ?? 'a small call gave wrong numbers'}`);
    }
    const isNative = backend.kernel === undefined ? path !== undefined : backend.kernel === 'native';
    return isNative ? finding(title, 'ok', what) : finding(title, 'missing', slow, remedy);
  };
  const cpp = `C++ kernels${instructionSet ? `, ${instructionSet}` : ''}`;
  const hasCuda = cuda !== undefined && !cuda.problem;
  const native = hasCuda ? `${cpp}; CUDA kernels after setNativeDevice('cuda')` : cpp;
  const onGpu = facts.tensorflow.onGpu ?
    hasCuda ? 'CUDA kernels, as an operation of TensorFlow on its GPU' :
      `${cpp}, as an operation of TensorFlow: from its GPU and back with a copy each way` :
    `${native}, as an operation of TensorFlow`;
  return [
    tried('cpu', cpuBackend, native),
    wasm.version === undefined ? finding('wasm', 'note', '@tensorflow/tfjs-backend-wasm is not installed') :
      tried('wasm', wasm, native),
    report ? finding('webgpu', 'ok', `WGSL kernels: ${planKinds(report)}`) :
      finding('webgpu', 'missing', 'not to be had here: see WebGPU'),
    name === undefined || error !== undefined ? finding('tensorflow', 'missing', 'not to be had here: see tfjs-node') :
      tried('tensorflow', facts.tensorflow, onGpu),
  ];
}

/** @typedef {{title: string, findings: Finding[]}} Section @param {Facts} facts @returns {Section[]} */
export function findings(facts) {
  return [
    {title: `tfjs-flash-attention ${facts.package.version}, in ${facts.package.dir}`, findings: []},
    {title: 'Machine', findings: [...machine(facts), ...gpu(facts)]},
    {title: 'Installed', findings: [...addon(facts), ...cuda(facts), ...tensorflow(facts), ...webgpu(facts)]},
    {title: 'What flashAttention would run on each backend of tfjs', findings: kernels(facts)},
  ];
}

const MARKS = {ok: 'ok', missing: '--', note: '  '};

/** @param {Section[]} sections @returns {string[]} lines of text */
export function render(sections) {
  const indent = ' '.repeat(19);
  return sections.flatMap(({title, findings: list}, n) => [
    ...n > 1 ? [''] : [],
    title,
    ...list.flatMap(({title: name, state, text, remedy}) => [
      `  ${MARKS[state]} ${name.padEnd(13)} ${text}`,
      ...(remedy ?? '').split('\n').filter(Boolean).map(line => `${indent}→ ${line.replace(/^\s+/, '')}`),
    ]),
  ]);
}
