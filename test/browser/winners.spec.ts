import {tune} from '../../src/index.js';
import {capabilitiesOf} from '../../src/backends/webgpu/device.js';
import {
  formatWinners, rememberedWinners, rememberWinners, setWinnerStorage,
} from '../../src/backends/webgpu/winners.js';
import {onFreshDevice} from '../support/fresh_device.js';
import {SLOW_MS} from '../support/specs.js';

const KEY = 'tfjs-flash-attention.winners';

describe('the memory of winners in a browser', () => {
  beforeEach(() => {
    localStorage.removeItem(KEY);
    setWinnerStorage(undefined);
  });

  afterAll(() => localStorage.removeItem(KEY));

  it('is localStorage', () => {
    expect(rememberedWinners('a')).toBeUndefined();
    expect(rememberWinners('a', {one: 'simt'})).toBe(`localStorage['${KEY}']`);
    expect(localStorage.getItem(KEY)).toBe(formatWinners({a: {one: 'simt'}}));
    expect(rememberedWinners('a')).toEqual({one: 'simt'});
  });

  it('does without what it cannot read or write', () => {
    localStorage.setItem(KEY, '{broken');
    expect(rememberedWinners('a')).toBeUndefined();
    spyOn(Storage.prototype, 'setItem').and.throwError('full');
    expect(rememberWinners('a', {one: 'simt'})).toBeUndefined();
  });

  it('has what tune finds win on the next device too', async () => {
    const few = [1, 2, 2, 16];
    let found = {};
    await onFreshDevice(async () => {
      const {adapter, problems, winner, timed, rememberedIn} =
          await tune({q: few, k: [1, 64, 2, 16], v: [1, 64, 2, 16]}, {}, {milliseconds: 5});
      expect(timed.map(({kind}) => kind)).toEqual(jasmine.arrayContaining(['simt', 'decode']));
      expect(rememberedIn).toBe(`localStorage['${KEY}']`);
      expect(rememberedWinners(adapter)).toEqual({[problems]: winner} as ReturnType<typeof rememberedWinners>);
      found = {[problems]: winner};
    }, {full: true});
    await onFreshDevice(async device => {
      expect(capabilitiesOf(device).winners).toEqual(found);
    }, {full: true});
    await onFreshDevice(async device => {
      expect(capabilitiesOf(device).winners).withContext('a stock device').toBeUndefined();
    });
  }, SLOW_MS);
});
