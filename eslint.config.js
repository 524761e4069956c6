// Few rules: what the compiler does not see (any, promises left alone), the house style, and who may import whom.
import {defineConfig} from 'eslint/config';
import tseslint from 'typescript-eslint';

/**
 * Who may import whom in src: a file sees what `allowed` names (a regular expression for the whole specifier) and
 * nothing else, by import, export-from or import(). So nothing in src reaches test, benchmarks or examples either.
 * The folders are flat; a folder inside one of them needs an entry of its own.
 */
function mayImport(files, allowed, message) {
  const regex = `^(?!(${allowed})$)`;
  return {
    files: [files],
    rules: {
      'no-restricted-imports': ['error', {patterns: [{regex, message}]}],
      'no-restricted-syntax': ['error', {
        // A selector cannot hold a slash.
        selector: `:matches(ImportExpression, TSImportType) Literal[value=/${regex.replaceAll('/', '\\x2F')}/]`,
        message,
      }],
    },
  };
}

const FILE = '\\./[^.].*'; // in the same folder or below

const importRules = [
  mayImport('src/op/**', `${FILE}|@tensorflow/tfjs-core`, 'src/op knows no backend: only itself and tfjs-core.'),
  mayImport('src/op/*/**', `${FILE}|\\.\\./[^./].*|@tensorflow/tfjs-core`,
      'src/op knows no backend: only itself and tfjs-core.'),
  mayImport('src/backends/*/**', `${FILE}|(\\.\\./){2}op/.*|@tensorflow/.*|webgpu`,
      'A backend imports src/op, tfjs and itself, never another backend (src/backends/register.ts wires them).'),
  mayImport('src/backends/webgpu/node_*.ts', `${FILE}|(\\.\\./){2}op/.*|@tensorflow/.*|webgpu|node:.*`,
      'What is for Node only imports what a backend may, and Node.'),
  mayImport('src/backends/*.ts', `${FILE}|\\.\\./op/.*|@tensorflow/tfjs-core`,
      'register.ts wires src/op to the backends and needs no more.'),
  mayImport('src/layers/**', `${FILE}|\\.\\./op/.*|\\.\\./index\\.js|@tensorflow/.*`,
      'src/layers imports src/op, tfjs and ../index.js (which registers the op).'),
  mayImport('src/*.ts', `${FILE}|@tensorflow/.*`, 'The entries of src import src and tfjs only.'),
  {
    files: ['kernels/**'],
    rules: {
      'no-restricted-imports': ['error', {patterns: [{regex: '/src/', message: 'kernels imports nothing of src.'}]}],
    },
  },
];

export default defineConfig(
    {ignores: ['.*/', '**/dist/', '**/build/', '**/out/', 'src/backends/webgpu/wgsl_sources.ts']},
    {linterOptions: {reportUnusedDisableDirectives: 'error'}},
    tseslint.configs.recommended,
    {
      rules: {
        '@typescript-eslint/no-unused-vars': ['error', {ignoreRestSiblings: true}],
        eqeqeq: ['error', 'always', {null: 'ignore'}],
        curly: 'error',
        // The house style. These rules leave the core in ESLint 11; @stylistic/eslint-plugin has them then.
        quotes: ['error', 'single', {avoidEscape: true, allowTemplateLiterals: true}],
        semi: 'error',
        'no-tabs': 'error',
        'no-trailing-spaces': 'error',
        'eol-last': 'error',
        'max-len': ['error', {code: 120, ignoreUrls: true}],
      },
    },
    {
      files: ['**/*.ts'],
      ignores: ['test/package/**'], // written for the packed package, not for this project
      languageOptions: {parserOptions: {projectService: true, tsconfigRootDir: import.meta.dirname}},
      rules: {
        '@typescript-eslint/await-thenable': 'error',
        '@typescript-eslint/consistent-type-imports': ['error', {disallowTypeAnnotations: false}],
        '@typescript-eslint/no-floating-promises': 'error',
        '@typescript-eslint/no-misused-promises': 'error',
        '@typescript-eslint/only-throw-error': 'error',
        '@typescript-eslint/switch-exhaustiveness-check': ['error', {considerDefaultExhaustiveForUnions: true}],
      },
    },
    {files: ['**/*.cjs'], rules: {'@typescript-eslint/no-require-imports': 'off'}},
    importRules,
);
