"""Milliseconds of calls that are queued one after the other, by CUDA events; without a GPU by the clock, for tests."""
import statistics
import time

WARM_UP_MS, BATCH_MS, BATCHES, FEWEST, MOST_MS, MOST_RUNS = 250, 40, 7, 3, 2000, 400
LONG_MS, FEWEST_LONG = 1000, 2


class Stopwatch:
    """Marks places among what was queued."""

    def __init__(self, torch, device):
        self.torch, self.is_gpu = torch, device != 'cpu'

    def mark(self):
        if not self.is_gpu:
            return time.perf_counter()
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self):
        if self.is_gpu:
            self.torch.cuda.synchronize()

    def between(self, start, end):
        """Milliseconds, once both are waited for."""
        return start.elapsed_time(end) if self.is_gpu else 1000 * (end - start)


def time_calls(watch, call, warm_up_ms=WARM_UP_MS, batch_ms=BATCH_MS, batches=BATCHES, most_ms=MOST_MS):
    """
    Median and spread, (slowest − fastest) / median, of batches of call(n), n = 0, 1, 2, … The device is kept at work
    for `warm_up_ms` right before: an idle GPU has a fraction of its clock. Batches are queued without waiting.
    """
    turn = 0

    def queue(runs):
        nonlocal turn
        start = watch.mark()
        for _ in range(runs):
            call(turn)
            turn += 1
        return start, watch.mark()

    def measured(runs):
        marks = queue(runs)
        watch.wait()
        return watch.between(*marks) / runs

    runs_of = lambda once: max(1, min(MOST_RUNS, round(batch_ms / max(once, 1e-3))))
    once = measured(1)
    warm_from = time.perf_counter()
    # A longer call than that was work enough.
    while once < warm_up_ms and 1000 * (time.perf_counter() - warm_from) < warm_up_ms:
        once = measured(runs_of(once))
    runs = runs_of(once)
    fewest = min(batches, FEWEST_LONG if once > LONG_MS else FEWEST)
    count = max(fewest, min(batches, int(most_ms / (runs * max(once, 1e-3)))))
    marks = [queue(runs) for _ in range(count)]
    watch.wait()
    samples = [watch.between(*pair) / runs for pair in marks]
    median = statistics.median(samples)
    return {'medianMs': median, 'spread': (max(samples) - min(samples)) / median, 'batches': count,
            'runsPerBatch': runs}
