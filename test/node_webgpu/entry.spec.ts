import {spawn} from 'node:child_process';

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

const ENTRY = JSON.stringify(new URL('../../src/node.ts', import.meta.url).href);

describe('tfjs-flash-attention/node', () => {
  it('brings up WebGPU with all that the adapter offers, and the process ends by itself', async () => {
    const {code, out, err} = await run(`
      import * as tf from '@tensorflow/tfjs';
      import {flashAttention} from ${ENTRY};
      console.log('set', await tf.setBackend('webgpu'));
      const x = tf.randomNormal([1, 20, 2, 8]);
      const g = tf.grad(t => flashAttention(t, x, x))(x);
      console.log('finite', (await g.data()).every(Number.isFinite));
      const {device} = tf.backend();
      const adapter = await navigator.gpu.requestAdapter();
      console.log('features', [...adapter.features].every(name => device.features.has(name)));
      console.log('buffers', device.limits.maxStorageBuffersPerShaderStage ===
          adapter.limits.maxStorageBuffersPerShaderStage);
    `);
    expect(out.split('\n').filter(line => / (true|false)$/.test(line)))
        .withContext(err).toEqual(['set true', 'finite true', 'features true', 'buffers true']);
    expect(code).withContext(err).toBe(0);
  }, 120_000);

  it('says what to do where there is no adapter', async () => {
    const {code, out, err} = await run(`
      import * as tf from '@tensorflow/tfjs';
      import {findNodeAdapter} from ${ENTRY};
      console.log((await findNodeAdapter()).description);
      console.log('set', await tf.setBackend('webgpu'));
    `, {VK_DRIVER_FILES: '/nowhere', VK_ICD_FILENAMES: '/nowhere'});
    expect(out).toContain('no WebGPU adapter found; on Linux install the Vulkan loader (apt-get install libvulkan1)');
    expect(out).toContain('set false');
    expect(err).toContain('flashAttention: no WebGPU adapter found');
    expect(code).toBe(0);
  }, 120_000);

  it('leaves a webgpu backend alone that is registered already, and says so', async () => {
    const {out, err, code} = await run(`
      import * as tf from '@tensorflow/tfjs';
      tf.registerBackend('webgpu', () => { throw new Error('mine'); });
      await import(${ENTRY});
      console.log('mine', await tf.setBackend('webgpu'));
    `);
    expect(err).toContain('a webgpu backend is registered already and stays');
    expect(err).toContain('Error: mine');
    expect(out).toContain('mine false');
    expect(code).withContext(err).toBe(0);
  }, 120_000);
});
