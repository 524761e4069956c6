"""Measures PyTorch's scaled_dot_product_attention on the CPU, float32, for supervise.ts, which starts this program as a
peer in the same run: messages are lines of JSON on the socket that Node names in NODE_CHANNEL_FD (messages.ts has their
shapes). --threads N: threads that PyTorch may use. Timed as core/timing.ts times the rest."""
import argparse
import json
import os
import socket
import statistics
import time

WARM_UP_MS, BATCH_MS, BATCHES, FEWEST, MOST_MS = 250, 80, 5, 3, 3000  # those of core/timing.ts
TOLERANCE = 1e-4
CACHE_BYTES, MOST_SETS = 128 * 2 ** 20, 8  # core/attention.ts
STEP_FLOPS = 3.5


class Skip(Exception):
    """What is not measured here, which is no fault."""


def time_batches(run):
    """Median and spread of the milliseconds of run(n), n = 0, 1, 2, …"""
    turn = 0

    def batch(runs):
        nonlocal turn
        start = time.perf_counter()
        for _ in range(runs):
            run(turn)
            turn += 1
        return 1000 * (time.perf_counter() - start)

    batch(1)
    once = batch(1)
    runs = max(1, min(500, round(BATCH_MS / once)))
    start = time.perf_counter()
    while once < WARM_UP_MS and 1000 * (time.perf_counter() - start) < WARM_UP_MS:
        batch(runs)
    samples = []
    start = time.perf_counter()
    while len(samples) < FEWEST or len(samples) < BATCHES and 1000 * (time.perf_counter() - start) < MOST_MS:
        samples.append(batch(runs) / runs)
    median = statistics.median(samples)
    return {'medianMs': median, 'spread': (max(samples) - min(samples)) / median, 'batches': len(samples),
            'runsPerBatch': runs}


def spread_numbers(torch, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return 3.4 * (torch.rand(shape, generator=generator) - 0.5)


def output_error(torch, q, k, v, output, causal):
    """Largest error of three rows of the last head against float64, relative to the largest value."""
    q, k, v, output = [x[-1, -1].double() for x in (q, k, v, output)]
    rows = sorted({0, q.shape[0] // 2, q.shape[0] - 1})
    scores = q[rows] @ k.T / q.shape[1] ** 0.5
    if causal:
        visible = torch.arange(k.shape[0])[None, :] <= torch.tensor(rows)[:, None] + k.shape[0] - q.shape[0]
        scores = scores.masked_fill(~visible, float('-inf'))
    expected = torch.softmax(scores, -1) @ v
    return ((output[rows] - expected).abs().max() / expected.abs().max()).item()


def gradient_error(q, k, d_o, gradients):
    """The two identities of core/verify.ts."""
    d_q, d_k, d_v = [x.double() for x in gradients]
    sums = (d_v.sum(2) - d_o.double().sum(2)).abs().max() / d_o.double().abs().sum(2).max()
    terms = (q.double() * d_q).abs().sum()
    return max(sums.item(), (((q.double() * d_q).sum() - (k.double() * d_k).sum()).abs() / terms).item())


def check(error):
    if not error <= TOLERANCE:
        raise ValueError(f'wrong results: relative error {error}')
    return error


def measure_attention(torch, m, emit):
    attend = torch.nn.functional.scaled_dot_product_attention
    shape = [m[name] for name in ('batch', 'heads', 'length', 'headSize')]
    size = 4 * shape[0] * shape[1] * shape[2] * shape[3]
    sets = max(2, min(MOST_SETS, -(-CACHE_BYTES // (4 * size))))
    inputs = [[spread_numbers(torch, shape, 4 * n + i) for i in range(4)] for n in range(sets)]
    for q, k, v, _ in inputs:
        for x in (q, k, v):
            x.requires_grad_()
    causal = m['causal']

    def forward(n):
        q, k, v, _ = inputs[n % sets]
        with torch.no_grad():
            return attend(q, k, v, is_causal=causal)

    def step(n):
        q, k, v, d_o = inputs[n % sets]
        return torch.autograd.grad(attend(q, k, v, is_causal=causal), (q, k, v), d_o)

    q, k, v, d_o = [x.detach() for x in inputs[0]]
    error = check(output_error(torch, q, k, v, forward(0), causal))
    check(gradient_error(q, k, d_o, step(0)))
    flops = 4 * shape[0] * shape[1] * shape[2] ** 2 * shape[3] / (2 if causal else 1)
    for name, run, share, tensors in (('forward', forward, 1, 4), ('forward+backward', step, STEP_FLOPS, 12)):
        timing = time_batches(run)
        emit({'kind': 'pytorch', 'pass': name, 'batch': shape[0], 'heads': shape[1], 'length': shape[2],
              'headSize': shape[3], 'causal': causal, 'series': m['series'], 'computeType': 'float32',
              'backend': 'pytorch', **timing, 'tflops': share * flops / timing['medianMs'] / 1e9,
              'leastBytes': tensors * size, 'error': error})


def measure_decode(torch, m, emit):
    keys, query_heads, key_heads, head_size = [m[name] for name in ('keys', 'queryHeads', 'keyHeads', 'headSize')]
    # Query heads that share a key head are rows of one matrix, so that nothing is repeated.
    q = spread_numbers(torch, [1, key_heads, query_heads // key_heads, head_size], 0)
    k, v = [spread_numbers(torch, [1, key_heads, keys, head_size], n) for n in (1, 2)]
    size = 4 * (k.numel() + v.numel())
    row = {'kind': m['kind'], 'keys': keys, 'queryHeads': query_heads, 'keyHeads': key_heads, 'headSize': head_size,
           'numSplits': 0, 'backend': 'pytorch'}

    if m['kind'] == 'read':
        reads = {
            'sum': lambda n: (k.sum(), v.sum()), 'max': lambda n: (k.max(), v.max()),
            'dot': lambda n: torch.dot(k.view(-1), v.view(-1)),
        }
        name, timing = min(((name, time_batches(run)) for name, run in reads.items()),
                           key=lambda one: one[1]['medianMs'])
        emit({**row, **timing, 'how': name, 'gigabytesPerSecond': size / timing['medianMs'] / 1e6})
        return

    def attend(n):
        with torch.no_grad():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    error = check(output_error(torch, q, k, v, attend(0), False))
    timing = time_batches(attend)
    emit({**row, **timing, 'layout': 'bhnd', 'computeType': 'float32', 'error': error,
          'gigabytesPerSecond': size / timing['medianMs'] / 1e6})


def perform(torch, m, emit):
    if m['suite'] == 'attention' and m['kind'] == 'pytorch':
        measure_attention(torch, m, emit)
    elif m['suite'] == 'decode' and m['kind'] in ('pytorch', 'read'):
        measure_decode(torch, m, emit)
    else:
        raise Skip('only attention and decoding are measured here')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--threads', type=int, required=True)
    threads = parser.parse_args().threads
    channel = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
    channel.setblocking(True)

    def tell(message):
        channel.sendall((json.dumps(message) + '\n').encode())

    try:
        import torch
        torch.set_num_threads(threads)
    except Exception as error:
        tell({'type': 'failed', 'why': f'PyTorch does not start: {error}'})
        return
    tell({'type': 'ready', 'environment': {'pytorch': torch.__version__}})
    for line in channel.makefile('r', encoding='utf-8'):
        try:
            perform(torch, json.loads(line), lambda row: tell({'type': 'row', 'row': row}))
            tell({'type': 'done'})
        except Skip as error:
            tell({'type': 'skipped', 'why': str(error)})
        except Exception as error:
            tell({'type': 'failed', 'why': f'{type(error).__name__}: {error}'})


main()
