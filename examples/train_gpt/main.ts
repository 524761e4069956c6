import {helpText, readOptions} from './options.js';
import {UsageError} from './usage_error.js';

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options.help) {
    console.log(helpText());
    return 0;
  }
  // tfjs takes a second to load, which a mistyped option need not wait for.
  const {trainGpt} = await import('./train.js');
  return trainGpt(options);
}

try {
  // Dawn would keep the process alive.
  process.exit(await main());
} catch (error) {
  if (error instanceof UsageError) {
    console.error(error.message);
    process.exit(2);
  }
  console.error(error);
  process.exit(1);
}
