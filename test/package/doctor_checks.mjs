// npx tfjs-flash-attention doctor, in the project that has the package installed.
import assert from 'node:assert/strict';

import {swiftShaderEnv, vulkanProblem} from '../../scripts/system_packages.mjs';
import {check, run} from '../support/checks.mjs';

/** @param {string} project */
export async function checkDoctor(project) {
  const doctor = (args, env = {}) => run('npx', ['tfjs-flash-attention', 'doctor', ...args],
      {cwd: project, env: {...process.env, ...swiftShaderEnv(), ...env}});
  const hasPrebuilt = process.platform === 'linux' && process.arch === 'x64';
  await check('doctor --json tells what is there', () => {
    const {facts, sections} = JSON.parse(doctor(['--json']));
    assert.equal(facts.node.version, process.version);
    assert.ok(facts.cpu.cores > 0);
    assert.equal(facts.cpuBackend.computes, true);
    assert.deepEqual(facts.tensorflow, {});
    if (hasPrebuilt) {
      assert.match(facts.addon.path, /prebuilds.linux-x64.flash_attention\.node$/);
      assert.equal(facts.cpuBackend.kernel, 'native');
      // What doctor reads from the system and what the addon asks of the CPU.
      assert.equal(facts.addon.instructionSet, facts.cpu.instructionSet);
    }
    assert.equal(typeof facts.webgpu.version, 'string');
    assert.ok(vulkanProblem() ? facts.webgpu.report ?? facts.webgpu.error : facts.webgpu.report, facts.webgpu.error);
    assert.equal(sections.length, 4);
  });
  await check('doctor says it in words, and what to do', () => {
    const text = doctor([], {FLASH_ATTENTION_ADDON: '/nowhere/addon.node'});
    assert.match(text, /^tfjs-flash-attention \d+\.\d+\.\d+, in /);
    assert.match(text, /-- Addon .*does not load/);
    assert.match(text, /→ \/nowhere\/addon\.node: there is no such file/);
    assert.match(text, /-- cpu +the TypeScript kernel/);
    assert.match(text, /-- tfjs-node +not installed in this project\n +→ npx tfjs-flash-attention setup-tfjs-node/);
    assert.match(doctor([], {FLASH_ATTENTION_NATIVE: 'off'}), /-- Addon +switched off by FLASH_ATTENTION_NATIVE/);
  });
}
