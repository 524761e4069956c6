#!/usr/bin/env node
// The package's commands. Exit codes: 0 done, 1 it could not be done, 2 the command line makes no sense.
import {doctor} from '../scripts/doctor/doctor.mjs';
import {parseArguments, USAGE, UsageError} from '../scripts/setup_tfjs_node/arguments.mjs';
import {explain, SetupError} from '../scripts/setup_tfjs_node/errors.mjs';
import {endOnSignals} from '../scripts/setup_tfjs_node/half_done.mjs';
import {setupTfjsNode} from '../scripts/setup_tfjs_node/setup.mjs';

try {
  const parsed = parseArguments(process.argv.slice(2));
  if (parsed.command === 'help') {
    process.stdout.write(USAGE);
  } else if (parsed.command === 'doctor') {
    await doctor(parsed, {project: process.cwd()});
  } else {
    endOnSignals();
    process.report.excludeNetwork = true; // it would look up names
    const isGlibc = process.report.getReport().header.glibcVersionRuntime !== undefined;
    await setupTfjsNode(parsed.request, {project: process.cwd(), isGlibc});
  }
} catch (error) {
  const explained = explain(error);
  if (explained instanceof UsageError) {
    console.error(`tfjs-flash-attention: ${explained.message}; see: npx tfjs-flash-attention help`);
    process.exitCode = 2;
  } else if (explained instanceof SetupError) {
    if (explained.output) {
      console.error(explained.output);
    }
    console.error(`setup-tfjs-node: ${explained.message}\n${explained.remedy}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}
