/** Something that the caller can put right: told in one line, exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}
