import {spawnSync} from 'node:child_process';

/** Whether a Python has PyTorch; if not, why, and what to do. */
export function findPyTorch(python: string): true|string {
  const {status, stderr, error} = spawnSync(
      python, ['-c', 'import torch'], {encoding: 'utf8', timeout: 60_000, stdio: ['ignore', 'ignore', 'pipe']});
  if (status === 0) {
    return true;
  }
  const why = error?.message ?? stderr.trim().split('\n').at(-1);
  return `${python}: ${why}; --python names an interpreter that has PyTorch`;
}
