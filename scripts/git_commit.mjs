import {execFileSync} from 'node:child_process';

/** The commit that this is, `-dirty` where files differ from it. A bundle has no repository, but is told its commit. */
export function gitCommit() {
  if (process.env.BUNDLE_COMMIT) {
    return process.env.BUNDLE_COMMIT;
  }
  try {
    const git = (...args) => execFileSync('git', args, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore']}).trim();
    const isDirty = git('status', '--porcelain', '--untracked-files=no') !== '';
    return git('rev-parse', '--short', 'HEAD') + (isDirty ? '-dirty' : '');
  } catch {
    return 'unknown';
  }
}
