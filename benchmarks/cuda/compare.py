"""
python3 compare.py: the CUDA kernels beside PyTorch's scaled_dot_product_attention on the same shapes in one process,
each checked against float64, then timed. Needs PyTorch for CUDA and libflash_attention_cuda.so, which
scripts/build_cuda_benchmark.mjs builds; no Node, no network. Leaves cuda-attention-<device>.json and
cuda-decode-<device>.json. TFLOP/s: 4·B·H·N²·D forward, 2.5 times that backward, half when causal.
"""
import argparse
import json
import os
import selectors
import subprocess
import sys
import time
from datetime import datetime, timezone

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from library import FAMILIES  # noqa: E402
from results import ResultsFile, attention_line, decode_line, goal_lines, said  # noqa: E402
from shapes import (  # noqa: E402
    COMPUTE_TYPES, DECODE_KEYS, DETERMINISTIC, LENGTHS, LONG, PEERS, SIZES, TOKENS, WIDTH, all_tasks)

START_SECONDS, TASK_SECONDS, LONG_SECONDS = 120, 60, 120


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(',')
    numbers = lambda text: [int(x) for x in text.split(',')]
    parser.add_argument('--seconds', type=float, default=540, help='no new task after that; the important ones first')
    parser.add_argument('--out', default=os.environ.get('OUT') or 'out', help='folder of the results')
    parser.add_argument('--parts', type=words, default=['attention', 'decode', 'long'])
    parser.add_argument('--compute', type=words, default=list(COMPUTE_TYPES))
    parser.add_argument('--lengths', type=numbers, default=list(LENGTHS), help='the first is the most important')
    parser.add_argument('--sizes', type=numbers, default=list(SIZES))
    parser.add_argument('--kinds', type=words, help='flash is ours; default: all')
    parser.add_argument('--tokens', type=int, default=TOKENS, help='B·N')
    parser.add_argument('--width', type=int, default=WIDTH, help='H·D')
    parser.add_argument('--long', type=int, default=LONG)
    parser.add_argument('--decode-keys', type=int, default=DECODE_KEYS)
    parser.add_argument('--layout', choices=('bhnd', 'bnhd'), default='bhnd', help='of q, k and v')
    parser.add_argument('--family', choices=FAMILIES, default='best',
                        help='of our kernels; others than the best go into files that the figures pass over')
    parser.add_argument('--deterministic', choices=DETERMINISTIC, default='both',
                        help='of our backward pass; both: also as it is otherwise, where kernels differ')
    parser.add_argument('--profile', action='store_true', help='milliseconds of each kernel of ours')
    parser.add_argument('--warm-up-ms', type=float, default=250)
    parser.add_argument('--batch-ms', type=float, default=40)
    parser.add_argument('--batches', type=int, default=7)
    parser.add_argument('--device', default='cuda', help='cpu: for tests')
    parser.add_argument('--library', default=os.path.join(HERE, 'libflash_attention_cuda.so'))
    args = parser.parse_args(arguments)
    kinds = {'flash', *(kind for peers in PEERS.values() for kind in peers)}
    for given, known, name in ((args.parts, ('attention', 'decode', 'long'), '--parts'),
                               (args.compute, COMPUTE_TYPES, '--compute'), (args.kinds or [], kinds, '--kinds')):
        unknown = [one for one in given if one not in known]
        if unknown:
            parser.error(f'expected {", ".join(known)} for {name}, received {", ".join(unknown)}')
    return args


class WorkerProcess:
    """worker.py, started when it is first needed and again after it has ended."""

    def __init__(self, options, log):
        self.options, self.log, self.process, self.environment = options, log, None, {}

    def start(self):
        reader, writer = os.pipe()
        with open(self.log, 'a') as log:
            self.process = subprocess.Popen(
                [sys.executable, os.path.join(HERE, 'worker.py'), json.dumps(self.options), str(writer)],
                stdin=subprocess.PIPE, stderr=log, text=True, pass_fds=[writer])
        os.close(writer)
        self.reader, self.rest = reader, b''
        self.selector = selectors.DefaultSelector()
        self.selector.register(reader, selectors.EVENT_READ)
        first = self.receive(time.monotonic() + START_SECONDS)
        if first is None or first['type'] != 'ready':
            self.stop()
            with open(self.log) as log:
                raise SystemExit('compare.py: the worker does not start\n' + ''.join(log.readlines()[-5:]))
        self.environment.update(first['environment'])

    def receive(self, until):
        """The next message, or None where the process has ended or the time is up."""
        while b'\n' not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not self.selector.select(left):
                return None
            got = os.read(self.reader, 65536)
            if not got:
                return None
            self.rest += got
        line, self.rest = self.rest.split(b'\n', 1)
        return json.loads(line)

    def perform(self, task, seconds, on_message):
        """@return '' or why it did not end well"""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps(task.json()) + '\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            return f'the process had ended with {self.stop()}'
        until = time.monotonic() + seconds
        while True:
            message = self.receive(until)
            if message is None:
                is_late = time.monotonic() >= until
                status = self.stop()
                return f'no answer after {seconds:.0f} s' if is_late else f'the process ended with {status}'
            if message['type'] == 'done':
                return ''
            if message['type'] == 'failed':
                if message['ends']:
                    self.stop()
                return message['why'] + (', and the GPU is lost' if message['ends'] else '')
            on_message(message)

    def stop(self):
        if self.process is None:
            return None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.selector.close()
        os.close(self.reader)
        self.process = None
        return status


def commit_of():
    """Of the bundle (a file beside this one), or of the checkout."""
    path = os.path.join(HERE, 'commit')
    if os.path.exists(path):
        with open(path) as file:
            return file.read().strip()
    try:
        return subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=HERE, capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def driver_of():
    try:
        return subprocess.run(['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader', '-i', '0'],
                              capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment_of(worker):
    found = {'date': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'commit': commit_of(), 'backend': 'cuda',
             'device': 'CPU', **worker.environment}
    driver = driver_of()
    return {**found, **({'driver': driver} if driver else {})}


class Comparison:
    def __init__(self, args):
        self.args, self.start = args, time.monotonic()
        os.makedirs(args.out, exist_ok=True)
        self.tasks = all_tasks(args.parts, args.compute, args.lengths, args.sizes, args.kinds, args.tokens, args.width,
                               args.long, args.decode_keys)
        self.worker = WorkerProcess({
            'device': args.device, 'library': args.library, 'warm_up_ms': args.warm_up_ms, 'batch_ms': args.batch_ms,
            'batches': args.batches, 'profile': args.profile, 'layout': args.layout,
            'family': args.family, 'deterministic': args.deterministic,
        }, os.path.join(args.out, 'cuda-worker.log'))
        self.files, self.right, self.copies = {}, [], []
        self.notes = []

    def file_of(self, task):
        suite = 'cuda-attention' if task.suite == 'attention' else 'cuda-decode'
        suite = suite if self.args.family == 'best' else f'{self.args.family.replace("_", "-")}-{suite}'
        if suite not in self.files:
            self.files[suite] = ResultsFile(self.args.out, suite, environment_of(self.worker))
        return self.files[suite]

    def left(self):
        return self.args.seconds - (time.monotonic() - self.start)

    def note_profile(self, task, message):
        """All into a file, and on the page those of the most important length."""
        kernels = sorted(message['kernels'], key=lambda one: -one[2])
        text = f'{message["pass"]} ms: ' + ', '.join(f'{name} {ms:.3f}' for name, _, ms in kernels if ms >= 0.002)
        with open(os.path.join(self.args.out, 'cuda-profile.txt'), 'a') as file:
            file.write(f'{task.label()} {text}\n')
        if task.length == self.args.lengths[0] and not task.causal:
            self.notes.append(text)

    def perform(self, task, rows):
        def on_message(message):
            if message['type'] == 'profile':
                self.note_profile(task, message)
                return
            row = message['row']
            rows.append(row)
            label = f'{task.label()} {row.get("pass", "")}'.strip()
            if 'wrong' in row:
                self.file_of(task).skip(label, f'wrong results: {row["wrong"]}')
                self.notes.append(f'WRONG {label}: {row["wrong"]}')
                return
            self.file_of(task).add(label, row)
            (self.copies if task.suite == 'copy' else self.right).append(row)

        why = self.worker.perform(task, LONG_SECONDS if task.series == 'long' else TASK_SECONDS, on_message)
        if why:
            self.file_of(task).skip(task.label(), why)
            self.notes.append(f'FAILED {task.label()}: {why}')

    def run(self):
        groups = {}
        for task in self.tasks:
            groups.setdefault(task.group() + (task.series,), []).append(task)
        self.worker.start()
        environment = environment_of(self.worker)
        print(', '.join(f'{name} {value}' for name, value in environment.items()), flush=True)
        print('TFLOP/s: ours is kernels alone (with conversions from float32), .w wgmma, .m mma.sync; ! wrong results, '
              '~ spread over 10%; c causal', flush=True)
        not_reached = []
        for tasks in groups.values():
            rows, kinds = [], []
            self.notes = []
            for task in tasks:
                if self.left() <= 0:
                    not_reached.append(task)
                    self.file_of(task).skip(task.label(), f'no time left of {self.args.seconds:.0f} s')
                    continue
                kinds.append(task.kind)
                before = len(rows)
                self.perform(task, rows)
                if task.suite != 'attention':
                    for row in rows[before:]:
                        print(decode_line(task, row, self.copies), flush=True)
            if tasks[0].suite == 'attention' and kinds:
                print(attention_line(tasks[0], rows, kinds), flush=True)
            for note in dict.fromkeys(self.notes):
                print(f'  {note[:300]}', flush=True)
        self.worker.stop()
        for line in goal_lines([row for row in self.right if 'pass' in row]):
            print(line)
        decoded = [row for row in self.right if row.get('keys') and row['kind'] == 'flash']
        for row in decoded if self.copies else []:
            share = row['gigabytesPerSecond'] / self.copies[-1]['gigabytesPerSecond']
            print(f'{said(share, 0.7)} decoding: {share:.2f} of a copy, wanted 0.7')
        if not_reached:
            print(f'no time for {len(not_reached)} tasks, the first {not_reached[0].label()}')
        print(f'{time.monotonic() - self.start:.0f} s; ' + ', '.join(file.path for file in self.files.values()))
        is_wrong = any(one['label'].find('flashAttention') >= 0 and not one['why'].startswith('no time')
                       for file in self.files.values() for one in file.contents['skipped'])
        return 1 if is_wrong else 0


if __name__ == '__main__':
    sys.exit(Comparison(parse(sys.argv[1:])).run())
