// node --expose-gc run_specs.cjs <jasmine's folder> <spec file>: one file of specs on tfjs-node. The last line is JSON.
require('@tensorflow/tfjs-node');
const [, , jasmineFolder, file] = process.argv;

async function main() {
  const {default: Jasmine} = await import(`${jasmineFolder}/lib/jasmine.js`);
  const jasmine = new Jasmine({projectBaseDir: __dirname});
  await jasmine.loadConfig({spec_dir: '.', spec_files: [file], env: {failSpecWithNoExpectations: true}});
  jasmine.exitOnCompletion = false;
  let specs = 0;
  jasmine.addReporter({specDone: ({status}) => {
    specs += Number(status === 'passed');
  }});
  const {overallStatus} = await jasmine.execute();
  console.log(JSON.stringify({specs}));
  process.exit(overallStatus === 'passed' && specs > 0 ? 0 : 1);
}

main();
