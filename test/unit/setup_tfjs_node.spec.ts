// The parts of setup-tfjs-node that need no network, no compiler and no TensorFlow. test/tensorflow runs the whole.
import {mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {checkMachine, parseArguments, UsageError} from '../../scripts/setup_tfjs_node/arguments.mjs';
import {parseGyp, readBindingGyp} from '../../scripts/setup_tfjs_node/binding_gyp.mjs';
import {buildCommands, headerFolders} from '../../scripts/setup_tfjs_node/compile.mjs';
import {checkedContents, writeContents} from '../../scripts/setup_tfjs_node/contents.mjs';
import {linkFiles, requireSpace} from '../../scripts/setup_tfjs_node/disk.mjs';
import {cacheFolder} from '../../scripts/setup_tfjs_node/download.mjs';
import {explain, REMEDIES, remedyFor, SetupError, toolError} from '../../scripts/setup_tfjs_node/errors.mjs';
import {finish, partialPath, processName, removeLeftovers} from '../../scripts/setup_tfjs_node/half_done.mjs';
import {Report} from '../../scripts/setup_tfjs_node/report.mjs';
import {runTool} from '../../scripts/setup_tfjs_node/run_tool.mjs';
import {problems} from '../../scripts/setup_tfjs_node/state.mjs';
import {
  fits, givenTensorFlow, inspectTensorFlow, pipPackage, TENSORFLOW_VERSION,
} from '../../scripts/setup_tfjs_node/tensorflow.mjs';
import {
  addonPlace, findPackage, otherManager, replaceOldUtil, twoCopies, versionRange, withoutOldUtil,
} from '../../scripts/setup_tfjs_node/tfjs_node.mjs';

// Its form is that of tfjs-node's own.
const GYP = `##
# A comment with 'quotes'.
{
  'variables' : {
    'tensorflow_include_dir' : '<(module_root_dir)/deps/include',
    'tensorflow-library-action': 'move'
  },
  'targets' : [{
    'target_name' : 'addon',
    'sources' : [
      'binding/backend.cc',
      "binding/" 'binding.cc', # two strings that are one
    ],
    'include_dirs' : [ '..', '<(tensorflow_include_dir)' ],
    'conditions' : [['OS=="linux"', {'libraries' : ['-Wl,-rpath,\\$$ORIGIN/../../deps/lib']}]],
    'warnings': [4190, True],
  }],
  "defines": ["NAPI_VERSION=<(napi_build_version)"]
}
`;

describe('setup-tfjs-node', () => {
  let folder: string;
  const file = (path: string, text = '') => {
    mkdirSync(join(folder, path, '..'), {recursive: true});
    writeFileSync(join(folder, path), text);
  };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'setup-tfjs-node-'));
  });
  afterEach(() => rmSync(folder, {recursive: true, force: true}));

  describe('arguments', () => {
    const setup = (...args: string[]) => parseArguments(['setup-tfjs-node', ...args]);

    it('are understood', () => {
      expect(setup()).toEqual({command: 'setup-tfjs-node', request: {gpu: false, download: false}});
      expect(setup('--no-save'))
          .toEqual({command: 'setup-tfjs-node', request: {gpu: false, download: false, noSave: true}});
      expect(setup('--gpu', '--download').command).toBe('setup-tfjs-node');
      for (const args of [['--tensorflow', 'my/tf', '--gpu'], ['--gpu', '--tensorflow=my/tf']]) {
        expect(setup(...args)).toEqual(
            {command: 'setup-tfjs-node', request: {gpu: true, download: false, tensorflow: 'my/tf'}});
      }
      for (const args of [[], ['help'], ['--help'], ['-h'], ['setup-tfjs-node', '--help']]) {
        expect(parseArguments(args)).toEqual({command: 'help'});
      }
    });

    it('that make no sense are refused in one line', () => {
      for (const [args, message] of [
        [['install'], /^there is no command install, only /],
        [['setup-tfjs-node', '--cpu'], /^setup-tfjs-node has no option --cpu, only --gpu, /],
        [['setup-tfjs-node', 'here'], /^setup-tfjs-node has no option here, only /],
        [['setup-tfjs-node', '--tensorflow'], /^--tensorflow needs a folder/],
        [['setup-tfjs-node', '--tensorflow', '--gpu'], /^--tensorflow needs a folder/],
        [['setup-tfjs-node', '--tensorflow='], /^--tensorflow needs a folder/],
        [['setup-tfjs-node', '--download', '--tensorflow', 'a'], /exclude each other$/],
      ] as [string[], RegExp][]) {
        expect(() => parseArguments(args)).toThrowMatching(
            error => error instanceof UsageError && message.test(error.message) && !error.message.includes('\n'));
      }
    });

    it('are refused on machines that cannot do it', () => {
      const machine = {platform: 'linux', arch: 'x64', isGlibc: true};
      const none = {gpu: false, download: false};
      expect(() => checkMachine(machine, none)).not.toThrow();
      expect(() => checkMachine({...machine, arch: 'arm64'}, none)).not.toThrow();
      expect(() => checkMachine({...machine, platform: 'win32'}, none)).toThrowError(SetupError, /win32 on x64/);
      expect(() => checkMachine({...machine, isGlibc: false}, none)).toThrowError(SetupError, /glibc/);
      expect(() => checkMachine({...machine, isGlibc: false}, {...none, tensorflow: 'a'})).not.toThrow();
      expect(() => checkMachine({...machine, arch: 'arm64'}, {...none, gpu: true})).toThrowError(SetupError, /CUDA/);
    });
  });

  describe('what to install', () => {
    it('from pip goes by processor and --gpu', () => {
      expect(pipPackage('x64', false).requirement).toBe(`tensorflow-cpu==${TENSORFLOW_VERSION}`);
      expect(pipPackage('arm64', false).requirement).toBe(`tensorflow==${TENSORFLOW_VERSION}`);
      const gpu = pipPackage('x64', true);
      expect(gpu.requirement).toBe(`tensorflow==${TENSORFLOW_VERSION}`);
      expect(gpu.cuda).toBeTrue();
      expect(new Set(['x64', 'arm64'].map(arch => pipPackage(arch, false).name)).add(gpu.name).size).toBe(3);
    });

    it('from npm goes by the tfjs of the project', () => {
      expect(versionRange(undefined)).toBe('~4.22.0');
      expect(versionRange('4.21.3')).toBe('~4.21.0');
      expect(versionRange('5.0.0-rc.1')).toBe('~5.0.0');
    });

    it('is left to the package manager of the project', () => {
      expect(otherManager(folder)).toBeUndefined();
      file('pnpm-lock.yaml');
      expect(otherManager(folder)).toBe('pnpm');
    });

    it('goes to a cache folder of the user', () => {
      expect(cacheFolder({XDG_CACHE_HOME: '/cache'})).toBe('/cache/tfjs-flash-attention');
      expect(cacheFolder({XDG_CACHE_HOME: 'relative'})).toMatch(/^\/.*\/\.cache\/tfjs-flash-attention$/);
    });
  });

  describe('a TensorFlow', () => {
    function tensorflow(at: string, {core = 'libtensorflow_cc.so.2', include = 'include'} = {}) {
      file(join(at, core));
      file(join(at, 'libtensorflow_framework.so.2'));
      file(join(at, include, 'tensorflow/c/eager/c_api.h'));
    }

    it('is found in the folders that people give', () => {
      const packages = 'venv/lib/python3.12/site-packages';
      tensorflow(`${packages}/tensorflow`);
      mkdirSync(join(folder, packages, 'tensorflow_cpu-2.21.0.dist-info'));
      mkdirSync(join(folder, packages, 'tensorflow_io-0.37.1.dist-info.old'));
      const libDir = join(folder, packages, 'tensorflow');
      for (const given of ['venv', packages, `${packages}/tensorflow`]) {
        expect(inspectTensorFlow(join(folder, given))).toEqual({
          libDir, libraries: ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'],
          includeDir: join(libDir, 'include'), version: '2.21.0', isCuda: undefined, hasCudaLibraries: false,
        });
      }
      tensorflow('archive/lib', {core: 'libtensorflow.so.2', include: '../include'});
      expect(inspectTensorFlow(join(folder, 'archive'))?.libraries[0]).toBe('libtensorflow.so.2');
    });

    it('that lacks something is none', () => {
      expect(inspectTensorFlow(folder)).toBeUndefined();
      expect(inspectTensorFlow(join(folder, 'nowhere'))).toBeUndefined();
      tensorflow('tensorflow');
      rmSync(join(folder, 'tensorflow/libtensorflow_framework.so.2'));
      expect(() => givenTensorFlow(folder, false)).toThrowMatching(
          error => error instanceof SetupError && /there is no TensorFlow in /.test(error.message));
    });

    it('with CUDA is told from one without', () => {
      tensorflow('tensorflow');
      const info = 'tensorflow/python/platform/build_info.py';
      file(info, `OrderedDict([('is_cuda_build', False)])`);
      expect(() => givenTensorFlow(folder, true)).toThrowError(SetupError, /without CUDA/);
      expect(fits(givenTensorFlow(folder, false), true)).toBeFalse();
      file(info, `OrderedDict([('cuda_version', '12'), ('is_cuda_build', True)])`);
      expect(fits(givenTensorFlow(folder, true), true)).toBeFalse(); // CUDA's libraries are missing
      mkdirSync(join(folder, 'nvidia/cudnn/lib'), {recursive: true});
      expect(fits(givenTensorFlow(folder, true), true)).toBeTrue();
    });
  });

  describe('binding.gyp', () => {
    it('is read', () => {
      expect(readBindingGyp(GYP, {module_root_dir: '/m', napi_build_version: '8'})).toEqual({
        sources: ['binding/backend.cc', 'binding/binding.cc'],
        includeDirs: ['..', '/m/deps/include'],
        defines: ['NAPI_VERSION=8'],
      });
      const [, {libraries}] = parseGyp(GYP).targets[0].conditions[0];
      expect(libraries).toEqual(['-Wl,-rpath,\\$$ORIGIN/../../deps/lib']);
      expect(parseGyp(GYP).targets[0].warnings).toEqual([4190, true]);
    });

    it('takes other variables than its own', () => {
      const {includeDirs} =
          readBindingGyp(GYP, {module_root_dir: '/m', napi_build_version: '8', tensorflow_include_dir: '/tf'});
      expect(includeDirs).toEqual(['..', '/tf']);
    });

    it('that cannot be read says where', () => {
      expect(() => parseGyp(`{\n'a': [1, x]}`)).toThrowError(/received x\]\}, line 2/);
      expect(() => parseGyp(`{'a': 1`)).toThrowError(/expected ,, received the end/);
      expect(() => parseGyp(`{'a' 1}`)).toThrowError(/expected :, received value/);
      expect(() => parseGyp(`[1] 2`)).toThrowError(/expected the end/);
      expect(() => readBindingGyp(`{'targets': [{}]}`, {})).toThrowError(/no sources/);
      expect(() => readBindingGyp(`{'targets': [{'sources': ['<(a)']}]}`, {})).toThrowError(/variable a is not known/);
    });

    it('becomes commands for the compiler', () => {
      const [backend, , link] = buildCommands({
        compiler: ['ccache', 'g++'], packageDir: '/m', nodeApi: 8, nodeHeaders: '/node',
        tensorflow: {libDir: '/tf', libraries: ['libtensorflow_cc.so.2'], includeDir: '/tf/include'},
        rpath: '$ORIGIN/../../deps/lib', objects: '/o', output: '/o/addon.node',
      }, GYP);
      expect(backend.args.join(' ')).toMatch('g\\+\\+ -std=c\\+\\+17 .*-DNAPI_VERSION=8 ' +
          '-I \\.\\. -I /tf/include -I /node -c binding/backend\\.cc -o /o/.*\\.o$');
      expect(link.args.join(' ')).toMatch('^g\\+\\+ -shared .*/tf/libtensorflow_cc\\.so\\.2 ' +
          '-Wl,-rpath,\\$ORIGIN/\\.\\./\\.\\./deps/lib -o /o/addon\\.node$');
    });

    it('needs Node\'s header, first from beside Node', () => {
      expect(headerFolders('/opt/node/bin/node', {npm_config_nodedir: '/nodedir'})).toEqual(
          ['/opt/node/include/node', '/nodedir/include/node', '/usr/local/include/node', '/usr/include/node']);
    });
  });

  describe('the npm package', () => {
    const manifest = {binary: {
      module_name: 'addon', module_path: './lib/napi-v{napi_build_version}', napi_versions: [3, 4, 5, 6, 7, 8],
    }};

    it('looks for its addon by the version of Node-API', () => {
      expect(addonPlace(manifest, 10)).toEqual({nodeApi: 8, path: 'lib/napi-v8/addon.node'});
      expect(addonPlace(manifest, 7).path).toBe('lib/napi-v7/addon.node');
    });

    it('does without what Node has given up', () => {
      expect(withoutOldUtil('if ((0, util_1.isNullOrUndefined)(tensors)) {')).toBe('if ((tensors == null)) {');
      expect(withoutOldUtil('var n = (0, util_1.isNullOrUndefined)(k) ? 1 : k;')).toBe('var n = (k == null) ? 1 : k;');
      expect(withoutOldUtil('if (util_1.isNullOrUndefined(a) || (0, util_1.isArray)(b())) {'))
          .toBe('if ((a == null) || Array.isArray(b())) {');
      expect(withoutOldUtil('(0, util_1.promisify)(f); util.isArrayBuffer(x)')).toBe(
          '(0, util_1.promisify)(f); util.isArrayBuffer(x)');
    });

    it('is changed once, in new files', () => {
      file('dist/kernels/a.js', '(0, util_1.isNullOrUndefined)(k)');
      file('dist/a_test.js', '(0, util_1.isNullOrUndefined)(k)');
      file('dist/b.js', 'nothing');
      linkFiles(folder, join(folder, 'store'), ['dist/kernels/a.js']);
      expect(replaceOldUtil(folder)).toEqual(['dist/kernels/a.js']);
      expect(readFileSync(join(folder, 'dist/kernels/a.js'), 'utf8')).toBe('(k == null)');
      expect(readFileSync(join(folder, 'store/dist/kernels/a.js'), 'utf8')).toContain('util_1');
      expect(replaceOldUtil(folder)).toEqual([]);
    });

    it('should share tfjs-core with the project', () => {
      const core = 'node_modules/@tensorflow/tfjs-core/package.json';
      file(core, '{"version": "4.22.0"}');
      const dirInProject = 'node_modules/@tensorflow/tfjs-node';
      const dir = join(folder, dirInProject);
      file(join(dirInProject, 'package.json'), '{"version": "4.22.0"}');
      expect(findPackage(folder, '@tensorflow/tfjs-node')?.version).toBe('4.22.0');
      expect(findPackage(folder, '@tensorflow/none')).toBeUndefined();
      expect(twoCopies(folder, dir)).toBeUndefined();
      // A second project, since Node remembers where it has found a package.
      file(join('second', core), '{"version": "4.22.0"}');
      file(join('second', dirInProject, core), '{"version": "4.21.0"}');
      expect(twoCopies(join(folder, 'second'), join(folder, 'second', dirInProject))).toMatch(
          /tfjs-core 4\.22\.0 and tfjs-node uses 4\.21\.0/);
    });
  });

  describe('what is there', () => {
    const state = {
      tfjsNode: '4.22.0', tensorflow: 'TensorFlow 2.21.0 of pip', libDir: null, isDownload: true,
      files: {'lib/addon.node': 10, 'deps/lib/a.so': 20},
    };
    const wanted = {tfjsNode: '4.22.0', libDir: undefined, download: false};
    const sizes = (files: Record<string, number>) => (name: string) => files[name];

    it('is enough', () => {
      expect(problems(state, wanted, sizes(state.files))).toEqual([]);
      expect(problems(state, {...wanted, download: true}, sizes(state.files))).toEqual([]);
      const inPlace = {...state, libDir: '/tf', isDownload: false};
      expect(problems(inPlace, {...wanted, libDir: '/tf'}, sizes(state.files))).toEqual([]);
    });

    it('is not enough', () => {
      const found = (...args: Parameters<typeof problems>) => problems(...args).join('; ');
      const whole = sizes(state.files);
      expect(found(undefined, wanted, whole)).toMatch(/not been set up/);
      expect(found(state, {...wanted, tfjsNode: '4.23.0'}, whole)).toMatch(/for version 4\.22\.0/);
      expect(found(state, {...wanted, libDir: '/tf'}, whole)).toMatch(/built against TensorFlow 2\.21\.0 of pip/);
      expect(found({...state, isDownload: false}, {...wanted, download: true}, whole)).toMatch(/did not download/);
      expect(found(state, wanted, sizes({'lib/addon.node': 10, 'deps/lib/a.so': 7})))
          .toBe('deps/lib/a.so has 7 bytes, not 20');
      expect(found(state, wanted, sizes({'deps/lib/a.so': 20}))).toBe('lib/addon.node is gone');
    });

    it('in the cache is known by its list', () => {
      expect(checkedContents(folder)).toBeUndefined();
      file('lib/a.so', 'library');
      file('include/c/a.h', 'header');
      const contents = {'lib/a.so': 7, 'include/c/a.h': 6};
      expect(writeContents(folder)).toEqual(contents);
      expect(checkedContents(folder)).toEqual(contents);
      file('lib/a.so', 'lib');
      expect(checkedContents(folder)).toBeUndefined();
    });

    it('is linked, not copied, on one disk', () => {
      file('from/lib/a.so', 'library');
      linkFiles(join(folder, 'from'), join(folder, 'to'), ['lib/a.so']);
      expect(statSync(join(folder, 'to/lib/a.so')).ino).toBe(statSync(join(folder, 'from/lib/a.so')).ino);
    });
  });

  describe('half-done work', () => {
    it('gets its name only when it is complete', () => {
      const target = join(folder, 'sub/target');
      const partial = partialPath(target);
      mkdirSync(partial);
      expect(readdirSync(join(folder, 'sub'))).toEqual([`target.partial-${processName(process.pid)}`]);
      finish(target);
      expect(readdirSync(join(folder, 'sub'))).toEqual(['target']);
    });

    it('of ended processes is removed, of others not', () => {
      const [, started] = (processName(process.pid) ?? '').split('-');
      const running = `a.partial-${process.pid}-${started}`;
      const reused = `a.partial-${process.pid}-1`; // this process has another's number
      const ended = 'b.partial-4194304-5';
      [running, reused, ended, 'a', 'a.partial-'].forEach(name => mkdirSync(join(folder, name)));
      expect(removeLeftovers(folder).sort()).toEqual([reused, ended].sort());
      expect(readdirSync(folder).sort()).toEqual([running, 'a', 'a.partial-'].sort());
      expect(removeLeftovers(join(folder, 'none'))).toEqual([]);
    });
  });

  describe('errors', () => {
    it('of tools come with a remedy', () => {
      for (const [output, remedy] of [
        ['ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device', 'disk'],
        ['npm error code ENOSPC', 'disk'],
        ['/usr/bin/python3: No module named pip', 'python'],
        ['ERROR: No matching distribution found for tensorflow-cpu==2.21.0', 'wheel'],
        ['NewConnectionError: Failed to establish a new connection\nERROR: No matching distribution found', 'network'],
        ['npm error code E403', 'network'],
        ['ERROR: HTTP error 403 while getting\n403 Client Error: Forbidden for url', 'network'],
        [`g++: error: unrecognized command line option '-std=c++17'`, 'newerCompiler'],
        ['a.h:21:10: fatal error: tensorflow/c/c_api.h: No such file or directory', 'headers'],
        ['ended by SIGILL', 'processor'],
      ] as [string, keyof typeof REMEDIES][]) {
        expect(remedyFor(output)).withContext(output).toBe(REMEDIES[remedy]);
      }
      expect(remedyFor('something else')).toBeUndefined();
      const {message, remedy, output} = toolError('pip failed', 'a\n'.repeat(100), {otherwise: 'Ask.'});
      expect([message, remedy, output.split('\n').length]).toEqual(['pip failed', 'Ask.', 15]);
      expect(toolError('pip failed', 'ENOSPC', {isShown: true})).toEqual(
          jasmine.objectContaining({remedy: REMEDIES.disk, output: ''}));
    });

    it('of the system come with a remedy where there is one', () => {
      const error = (code: string) => Object.assign(new Error(`${code}: it failed`), {code});
      expect(explain(error('ENOSPC'))).toBeInstanceOf(SetupError);
      expect(explain(error('EACCES'))).toBeInstanceOf(SetupError);
      const others = [error('EINVAL'), new SetupError('a', 'b'), new Error('c')];
      expect(others.map(explain)).toEqual(others);
    });

    it('about room on the disk come before the work', () => {
      const statfs = (() => ({bavail: 1000, bsize: 1_000_000})) as unknown as Parameters<typeof requireSpace>[2];
      expect(() => requireSpace(join(folder, 'not/yet'), 1e9, statfs)).not.toThrow();
      expect(() => requireSpace(folder, 1.2e9, statfs)).toThrowError(
          SetupError, /1\.2 GB are needed and 1\.0 GB are free/);
    });
  });

  it('runs tools, and reports those that are not there', async () => {
    const lines: string[] = [];
    const script = 'console.log("a\\nb"); console.error("c"); process.exit(3)';
    const outcome = await runTool(process.execPath, ['-e', script], {onLine: line => lines.push(line)});
    expect(outcome.ok).toBeFalse();
    expect(outcome.stdout).toBe('a\nb\n');
    expect(outcome.output).toContain('c\n');
    expect(lines).toEqual(['a', 'b']);
    expect((await runTool(join(folder, 'none'), [])).output).toContain('ENOENT');
    const killed = await runTool(process.execPath, ['-e', 'process.kill(process.pid, "SIGILL")']);
    expect(killed.output).toBe('ended by SIGILL\n');
  });

  it('shows progress, in quarters where there is no terminal', () => {
    const shown = (isTTY: boolean) => {
      let text = '';
      const report = new Report(2, {isTTY, write: (part: string) => text += part});
      report.start('TensorFlow');
      [0, 0.1, 0.1, 0.3, 0.55, 1].forEach(share => report.progress('unpacking', share));
      return text;
    };
    expect(shown(false)).toBe(
        '[1/2] TensorFlow\n      unpacking 25%\n      unpacking 50%\n      unpacking 100%\n');
    expect(shown(true)).toMatch(/\r {6}unpacking 10%\r {6}unpacking 30%\r {6}unpacking 55%\r {6}unpacking 100%\n$/);
  });
});
