// A worker for the tests of benchmarks/supervise.ts: does what the label of a measurement's variant says.
const tell = message => process.send(message);
const row = n => ({kind: 'flash', pass: 'forward', length: n, medianMs: n});

process.on('disconnect', () => process.exit(0));
process.on('message', ({variant, length}) => {
  switch (variant.label) {
    case 'rows':
      tell({type: 'row', row: row(length)});
      tell({type: 'row', row: row(length + 1)});
      tell({type: 'done'});
      break;
    case 'skip':
      tell({type: 'skipped', why: 'does not fit'});
      break;
    case 'fail':
      tell({type: 'row', row: row(length)});
      tell({type: 'failed', why: 'wrong results'});
      break;
    case 'hang':
      tell({type: 'row', row: row(length)});
      setTimeout(() => {
        for (;;) { /* as a driver that compiles forever */ }
      }, 50);
      break;
    case 'crash':
      process.kill(process.pid, 'SIGSEGV');
      break;
    case 'exit':
      process.exit(3);
  }
});
if (process.argv.includes('--broken')) {
  tell({type: 'failed', why: 'no adapter'});
} else if (!process.argv.includes('--silent')) {
  tell({type: 'ready', environment: {device: 'fake', commit: `process ${process.pid}`}});
}
