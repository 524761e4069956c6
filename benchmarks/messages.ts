import type {Measurement} from './core/measurements.js';
import type {Environment, Row} from './core/results.js';

/** What a worker process tells: `ready` or `failed` once, then for each measurement rows and one of the other three. */
export type FromWorker =
    {type: 'ready', environment: Partial<Environment>}|
    {type: 'row', row: Row}|
    {type: 'done'}|
    /** It cannot be measured here. */
    {type: 'skipped', why: string}|
    /** Something is wrong; rows of this measurement are not to be trusted. */
    {type: 'failed', why: string};

/** Serves the measurements that the parent process sends, one at a time. Ends with the parent. */
export function serveMeasurements(
    environment: Partial<Environment>, perform: (m: Measurement, emit: (row: Row) => void) => Promise<void>,
    isSkip: (error: Error) => boolean): void {
  const tell = (message: FromWorker) => process.send?.(message);
  process.on('disconnect', () => process.exit(0));
  process.on('message', (measurement: Measurement) => {
    perform(measurement, row => tell({type: 'row', row})).then(
        () => tell({type: 'done'}),
        (error: Error) => tell({type: isSkip(error) ? 'skipped' : 'failed', why: error.message}));
  });
  tell({type: 'ready', environment});
}
