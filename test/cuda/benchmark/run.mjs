// These checks alone.
import {writeCounts} from '../../support/checks.mjs';
import {checkBenchmark} from './checks.mjs';

await checkBenchmark();
writeCounts('cuda_benchmark');
