import {spawn} from 'node:child_process';
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

/** Runs a program in a Node process of its own; ends it when it takes too long. */
function run(program: string, env: NodeJS.ProcessEnv = {}): Promise<{code: number|null, out: string, err: string}> {
  return new Promise(resolve => {
    const child = spawn(
        process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program],
        {env: {...process.env, ...env}, timeout: 100_000});
    let out = '';
    let err = '';
    child.stdout.on('data', chunk => {
      out += chunk;
    });
    child.stderr.on('data', chunk => {
      err += chunk;
    });
    child.on('close', code => resolve({code, out, err}));
  });
}

const source = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
const ENTRY = source('node.ts');
const NOWHERE = {VK_DRIVER_FILES: '/nowhere', VK_ICD_FILENAMES: '/nowhere'};

describe('tfjs-flash-attention/node', () => {
  it('brings up WebGPU with all that the adapter offers, and the process ends by itself', async () => {
    const {code, out, err} = await run(`
      import * as tf from '@tensorflow/tfjs';
      import {enableWebGPU, flashAttention} from ${ENTRY};
      console.log('registered', tf.engine().backendNames().includes('webgpu'));
      console.log('started', globalThis.navigator?.gpu !== undefined);
      const report = await enableWebGPU();
      console.log('set', tf.getBackend() === 'webgpu', report.replaced.what === 'nothing');
      const x = tf.randomNormal([1, 20, 2, 8]);
      const g = tf.grad(t => flashAttention(t, x, x))(x);
      console.log('finite', (await g.data()).every(Number.isFinite));
      const {device} = tf.backend();
      const adapter = await navigator.gpu.requestAdapter();
      console.log('features', [...adapter.features].every(name => device.features.has(name)));
      console.log('buffers', device.limits.maxStorageBuffersPerShaderStage ===
          adapter.limits.maxStorageBuffersPerShaderStage);
    `);
    expect(out.split('\n').filter(line => / (true|false)$/.test(line))).withContext(err).toEqual(
        ['registered false', 'started false', 'set true true', 'finite true', 'features true', 'buffers true']);
    expect(code).withContext(err).toBe(0);
  }, 120_000);

  it('remembers what tune finds in a file, by which the next process runs', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tuned-'));
    const env = {FLASH_ATTENTION_CACHE: join(folder, 'winners.json'), FLASH_ATTENTION_DEBUG: 'plan'};
    const [q, k] = ['[1, 1, 2, 8]', '[1, 300, 2, 8]'];
    try {
      const tuned = await run(`
        import '@tensorflow/tfjs';
        import {enableWebGPU, tune} from ${ENTRY};
        await enableWebGPU({dawnFlags: ['enable-dawn-features=disable_workgroup_init']});
        const {winner, rememberedIn} = await tune({q: ${q}, k: ${k}, v: ${k}}, {}, {milliseconds: 5});
        console.log('winner:', winner);
        console.log('file:', rememberedIn);
      `, env);
      expect(tuned.out).withContext(tuned.err).toContain(`file: ${env.FLASH_ATTENTION_CACHE}\n`);
      const {code, out, err} = await run(`
        import * as tf from '@tensorflow/tfjs';
        import {enableWebGPU, flashAttention} from ${ENTRY};
        await enableWebGPU({dawnFlags: ['enable-dawn-features=disable_workgroup_init']});
        flashAttention(tf.ones(${q}), tf.ones(${k}), tf.ones(${k}));
      `, env);
      const winner = tuned.out.match(/winner: (\w+)/)?.[1];
      expect(out).withContext(err).toMatch(
          new RegExp(`plan: forward ${winner} for B1 Nq1 Nk300 .*the fastest that tune found`));
      expect(code).withContext(err).toBe(0);
    } finally {
      rmSync(folder, {recursive: true});
    }
  }, 240_000);

  it('says what to do where there is no adapter, and leaves the other backends', async () => {
    const {code, out, err} = await run(`
      import * as tf from '@tensorflow/tfjs';
      import {enableWebGPU} from ${ENTRY};
      await enableWebGPU().catch(error => console.log(error.message));
      console.log('webgpu registered', tf.engine().backendNames().includes('webgpu'));
      console.log(tf.add(1, 2).dataSync()[0], tf.getBackend());
    `, NOWHERE);
    expect(out).toContain(
        'flashAttention: WebGPU is missing: no WebGPU adapter found; on Linux install the Vulkan loader ' +
        '(apt-get install libvulkan1)');
    expect(out).toContain('webgpu registered false');
    expect(out).toContain('3 cpu');
    expect(code).withContext(err).toBe(0);
  }, 120_000);

  it('is what the main entry refers to in Node', async () => {
    const {code, out, err} = await run(`
      import {enableWebGPU} from ${source('index.ts')};
      await enableWebGPU().catch(error => console.log(error.message));
      const node = await import(${ENTRY});
      console.log('found', (await node.enableWebGPU()).adapter !== '');
      console.log('now here too', (await enableWebGPU()).adapter !== '');
    `);
    expect(out).toContain('WebGPU is missing: in Node import enableWebGPU from tfjs-flash-attention/node');
    expect(out).toContain('found true\nnow here too true');
    expect(code).withContext(err).toBe(0);
  }, 120_000);

  it('starts Dawn with the flags it is given, once', async () => {
    const {code, out, err} = await run(`
      import {enableWebGPU} from ${ENTRY};
      const attempt = dawnFlags => enableWebGPU({dawnFlags, replace: true}).then(() => 'ok', error => error.message);
      console.log('text', await attempt('allow_unsafe_apis'));
      console.log('no such adapter', await attempt(['adapter=none of that name']));
      console.log('others', await attempt(['enable-dawn-features=allow_unsafe_apis']));
      console.log('option', await enableWebGPU({flags: []}).catch(error => error.message));
    `);
    expect(out).toContain('text flashAttention: expected an array of strings for dawnFlags, received ');
    expect(out).toContain('no such adapter flashAttention: WebGPU is missing: no suitable backends found');
    expect(out).toMatch(/others flashAttention: expected the flags that Dawn was started with, .* for dawnFlags/);
    expect(out).toMatch(/option flashAttention: expected one of .*, dawnFlags for the name of an option/);
    expect(code).withContext(err).toBe(0);
  }, 120_000);

  it('gives a new backend after the device was lost', async () => {
    const {code, out, err} = await run(`
      import * as tf from '@tensorflow/tfjs';
      import {enableWebGPU, flashAttention} from ${ENTRY};
      for (let n = 0; n < 3; n++) {
        console.log((await enableWebGPU()).replaced.what);
        const x = tf.ones([1, 4, 1, 4]);
        console.log((await flashAttention(x, x, x).data())[0]);
        tf.backend().device.destroy();
        await flashAttention(x, x, x).data().catch(error => console.log(error.message));
      }
    `);
    const lost = 'flashAttention: the WebGPU device was lost (destroyed: ';
    expect(out.split('\n').filter(Boolean).map(line => line.startsWith(lost) ? lost : line)).withContext(err)
        .toEqual(['nothing', '1', lost, 'lost backend', '1', lost, 'lost backend', '1', lost]);
    expect(code).withContext(err).toBe(0);
  }, 120_000);
});
