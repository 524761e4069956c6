import {helpText, readOptions} from '../../../examples/train_gpt/options.js';
import {clock} from '../../../examples/train_gpt/progress_display.js';
import {UsageError} from '../../../examples/train_gpt/usage_error.js';

describe('readOptions', () => {
  it('leaves what is not given to the defaults', () => {
    const options = readOptions([]);
    expect(options).toEqual({
      backend: 'auto', config: {}, data: undefined, out: 'out', resume: false, minutes: undefined, lengths: undefined,
      sample: 500, help: false,
    });
    expect(Object.keys(options.config)).toEqual([]);
  });

  it('reads every option', () => {
    const args = '--backend wasm --attention standard --steps 10 --context 32 --layers 1 --heads 2 --width 16 ' +
        '--batch 3 --learning-rate 1e-3 --data some.txt --seed 0 --minutes 0.5 --lengths 128,64 --sample 0 ' +
        '--out there --resume';
    expect(readOptions(args.split(' '))).toEqual({
      backend: 'wasm',
      config: {
        attention: 'standard', steps: 10, context: 32, layers: 1, heads: 2, width: 16, batch: 3, learningRate: 1e-3,
        seed: 0,
      },
      data: 'some.txt', out: 'there', resume: true, minutes: 0.5, lengths: [64, 128], sample: 0, help: false,
    });
    expect(readOptions(['--minutes', '0']).minutes).toBe(Infinity);
    expect(readOptions(['--lengths', 'none']).lengths).toEqual([]);
  });

  const BAD = [
    '--steps 0', '--steps -5', '--steps=-5', '--steps 1.5', '--steps ten', '--steps', '--steps=', '--context 1',
    '--layers 0', '--heads x', '--width 0', '--batch 0', '--learning-rate 0', '--learning-rate NaN',
    '--learning-rate=-1', '--seed -1', '--seed 4294967296', '--minutes soon', '--lengths 1,x', '--lengths 0',
    '--lengths=', '--sample -1', '--backend gpu', '--attention fast', '--data=', '--out=', '--resume=yes', '--unknown',
    'stray',
  ];
  for (const line of BAD) {
    it(`refuses ${line} in one line`, () => {
      let message = '';
      try {
        readOptions(line.split(' '));
      } catch (error) {
        expect(error).toBeInstanceOf(UsageError);
        ({message} = error as Error);
      }
      expect(message).toMatch(/^[^\n]+$/);
    });
  }

  it('has a line of help for every option', () => {
    for (const name of Object.keys({backend: 0, attention: 0, steps: 0, context: 0, data: 0, seed: 0, resume: 0})) {
      expect(helpText()).toContain(`--${name}`);
    }
  });
});

describe('clock', () => {
  it('reads as people read it', () => {
    expect([0, 9.4, 75, 3675].map(clock)).toEqual(['0:00', '0:09', '1:15', '1:01:15']);
  });
});
