"""python3 compare_test.py: benchmarks/cuda without a GPU. Needs PyTorch, any build of it."""
import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../..')
sys.path.insert(0, os.path.join(ROOT, 'benchmarks/cuda'))

import torch  # noqa: E402

import compare  # noqa: E402
from exact import Expected, attend_columns, attend_rows, plain_everywhere, row_statistics, sampled  # noqa: E402
from peers import PeerCall  # noqa: E402
from results import ResultsFile, attention_line, goal_lines, slug  # noqa: E402
from shapes import Task, all_tasks  # noqa: E402
from timing import time_calls  # noqa: E402


def whole(q, k, v, d_o, causal):
    """O, LSE, dQ, dK, dV of [N,D] by autograd."""
    q, k, v = [x.double().requires_grad_() for x in (q, k, v)]
    scores = q @ k.T / q.shape[1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape, dtype=torch.bool).triu(1), float('-inf'))
    output = torch.softmax(scores, 1) @ v
    gradients = torch.autograd.grad(output, (q, k, v), d_o.double())
    return dict(zip(('output', 'lse', 'd_q', 'd_k', 'd_v'),
                    (output.detach(), torch.logsumexp(scores, 1).detach(), *gradients)))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Exact(unittest.TestCase):
    def test_rows_and_columns_are_those_of_autograd(self):
        q, k, v, d_o = [random(700, 16, seed=n) for n in range(4)]
        for causal in (False, True):
            expected = whole(q, k, v, d_o, causal)
            rows = sampled(torch, 700, 20, 'cpu')
            self.assertEqual(len(set(rows.tolist())), 60)
            self.assertTrue({0, 19, 680, 699} <= set(rows.tolist()))
            statistics = row_statistics(torch, q, k, v, d_o, causal)
            found = {**attend_rows(torch, q, k, v, d_o, rows, causal, torch.float64),
                     **attend_columns(torch, q, k, v, d_o, *statistics, rows, causal, torch.float64)}
            for name, x in found.items():
                self.assertLess((x - expected[name][rows]).abs().max().item(), 1e-12, name)

    def test_everything_by_plain_ops(self):
        inputs = [random(2, 3, 100, 16, seed=n) for n in range(4)]
        for causal in (False, True):
            found = plain_everywhere(torch, *inputs, causal, most_scores=2 * 100 ** 2)
            for batch in range(2):
                for head in range(3):
                    expected = whole(*[x[batch, head] for x in inputs], causal)
                    for name, x in found.items():
                        self.assertLess((x[batch, head] - expected[name]).abs().max().item(), 1e-5, name)

    def test_judges_by_what_plain_attention_errs(self):
        inputs = [random(512, 32, seed=n) for n in range(4)]
        right = whole(*inputs, False)
        for compute, rounding in (('float32', 2 ** -24), ('float16', 2 ** -11), ('bfloat16', 2 ** -8)):
            expected = Expected(torch, *inputs, False, count=64)
            self.assertLess(max(expected.judge(compute, right)[1].values()), 1e-3)
            for name, x in right.items():
                wrong = x.clone()
                wrong[511, ...] += 100 * rounding * x.abs().max()
                self.assertGreater(expected.judge(compute, {name: wrong})[0][name], 1, f'{compute} {name}')
                wrong[511, ...] = float('nan')
                self.assertEqual(expected.judge(compute, {name: wrong})[0][name], float('inf'))
        # Rounded operands, float32 sums: better than ops that round scores and weights too.
        rounded = whole(*[x.bfloat16().float() for x in inputs], False)
        shares = Expected(torch, *inputs, False, count=64).judge('bfloat16', rounded)[0]
        self.assertTrue(all(0.05 < share < 1 for share in shares.values()), shares)

    def test_peers_are_right(self):
        q, k, v, d_o = [random(1, 2, 200, 16, seed=n) for n in range(4)]
        call = PeerCall(torch, 'math', q, k, v, d_o, True, 'float32')
        with call.context():
            call.forward()
            call.backward()
        expected = Expected(torch, *[x[0, 1] for x in (q, k, v, d_o)], True)
        found = {name: getattr(call, name)[0, 1] for name in ('output', 'd_q', 'd_k', 'd_v')}
        self.assertLess(max(expected.judge('float32', found)[0].values()), 1)


class FakeWatch:
    """A device whose calls take 2 ms, the first 10 of them 8 ms."""

    def __init__(self):
        self.now, self.calls = 0, 0

    def call(self, n):
        assert n == self.calls
        self.calls += 1
        self.now += 8 if n < 10 else 2

    def mark(self):
        return self.now

    def wait(self):
        pass

    def between(self, start, end):
        return end - start


class Timing(unittest.TestCase):
    def test_median_of_batches_after_warming_up(self):
        watch = FakeWatch()
        timing = time_calls(watch, watch.call, warm_up_ms=10, batch_ms=40, batches=7)
        self.assertEqual((timing['medianMs'], timing['spread'], timing['batches'], timing['runsPerBatch']),
                         (2, 0, 7, 20))
        slow = FakeWatch()
        timing = time_calls(slow, slow.call, warm_up_ms=0, batch_ms=1, batches=7, most_ms=10)
        self.assertEqual((timing['batches'], timing['runsPerBatch']), (3, 1))
        self.assertEqual(slow.calls, 4)


def row(kind, name, tflops, conversions=None, **more):
    made = {'kind': kind, 'pass': name, 'batch': 4, 'heads': 32, 'length': 4096, 'headSize': 64, 'causal': False,
            'series': 'sweep', 'computeType': 'bfloat16', 'medianMs': 1.0, 'spread': 0.01, 'batches': 7,
            'runsPerBatch': 9, 'tflops': tflops, 'share': 0.5, 'timesPlain': 0.9, **more}
    return made if conversions is None else {**made, 'conversions': conversions}


ROWS = [row('flash', 'forward', 420, False, kernels=['hopper_forward_bf16_64']),
        row('flash', 'forward', 300, True), row('flash', 'backward', 200, False),
        row('cudnn', 'forward', 466), row('cudnn', 'backward', 430, spread=0.2),
        row('flash-attention-2', 'forward', 298), row('flash-attention-2', 'backward', 258, wrong='all of it')]


class Results(unittest.TestCase):
    TASK = Task('attention', 'flash', 'bfloat16', 4, 32, 32, 4096, 4096, 64, False)

    def test_a_line_for_a_shape(self):
        self.assertEqual(
            attention_line(self.TASK, ROWS, ['flash', 'cudnn', 'flash-attention-2', 'efficient']),
            'bf16 N4096 D64  | for ours.w 420 (300), cudnn 466, fa2 298, effic — | '
            'bac ours 200, cudnn 430~, fa2 258!, effic — | err/allowed 0.5 0.5, /plain 0.9 0.9')

    def test_rows_in_any_order(self):
        line = attention_line(self.TASK, ROWS + [row('flash', 'backward', 240, False, deterministic=False)], ['flash'])
        self.assertIn('| bac ours 200 | in any order ours 240 |', line)

    def test_goals(self):
        self.assertEqual(goal_lines([one for one in ROWS if 'wrong' not in one]), [
            'reached bf16 forward D64: 1.41 of fa2, wanted 1', 'reached bf16 forward D64: 0.90 of cudnn, wanted 0.9',
            'MISSED  bf16 backward D64: 0.47 of cudnn, wanted 0.8',
            'MISSED  bf16 with conversions, N ≥ 4096: at least 0.71 of the kernels alone (forward, N4096 D64), '
            'wanted 0.8'])

    def test_the_file_keeps_what_is_of_the_same_commit(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = {'device': 'NVIDIA H100 80GB HBM3', 'commit': 'abc'}
            first = ResultsFile(folder, 'cuda-attention', environment)
            first.skip('a', 'because')
            first.skip('b', 'because')
            first.add('a', row('flash', 'forward', 1, False))
            second = ResultsFile(folder, 'cuda-attention', environment)
            second.add('c', row('flash', 'forward', 2, False))
            second.add('d', row('flash', 'forward', 3, True))
            self.assertTrue(second.path.endswith('/cuda-attention-nvidia-h100-80gb-hbm3.json'))
            with open(second.path) as file:
                contents = json.load(file)
            self.assertEqual([one['tflops'] for one in contents['results']], [2, 3])
            self.assertEqual(contents['skipped'], [{'label': 'b', 'why': 'because'}])
            other = ResultsFile(folder, 'cuda-attention', {**environment, 'commit': 'def'})
            self.assertEqual(other.contents['results'], [])

    def test_slugs_are_those_of_typescript(self):
        self.assertEqual(slug('AMD EPYC, 2 cores'), 'amd-epyc-2-cores')


class Shapes(unittest.TestCase):
    def test_order_and_flops(self):
        tasks = all_tasks()
        self.assertEqual(len(set(tasks)), len(tasks))
        first = tasks[0]
        self.assertEqual((first.compute, first.length, first.size, first.kind), ('bfloat16', 4096, 128, 'flash'))
        self.assertEqual((first.batch, first.heads), (4, 16))
        self.assertEqual(first.forward_flops(), 4 * 16384 * 4096 * 2048)
        self.assertEqual([one for one in tasks if one.causal][0].forward_flops(), 2 * 16384 * 4096 * 2048)
        shapes = {(one.compute, one.length, one.size, one.causal) for one in tasks if one.series == 'sweep' and
                  one.suite == 'attention'}
        self.assertEqual(len(shapes), 4 * 3 * 2 * 2)
        decode = [one for one in tasks if one.suite == 'decode'][0]
        self.assertEqual(decode.keys_bytes(), 2 * 8 * 32768 * 128 * 4)
        self.assertLess([one.suite for one in tasks].index('decode'), 20)

    def test_arguments(self):
        self.assertEqual(compare.parse(['--lengths', '1024,64']).lengths, [1024, 64])
        stderr, sys.stderr = sys.stderr, open(os.devnull, 'w')
        try:
            for wrong in (['--compute=int8'], ['--kinds=ours'], ['--parts=all'], ['--layout=thd']):
                with self.assertRaises(SystemExit):
                    compare.parse(wrong)
        finally:
            sys.stderr.close()
            sys.stderr = stderr


if __name__ == '__main__':
    unittest.main()
