"""Performs the tasks that compare.py sends, one JSON a line, and answers with lines of JSON. A process of its own: an
error of a kernel may leave a CUDA context of no use, and then this process ends and another takes its place.

Each call is checked against float64 before it is timed; results that are wrong are timed too, and said to be wrong."""
import json
import os
import sys
import traceback
from dataclasses import dataclass

from exact import FLOOR, Expected, largest_error, plain_everywhere
from library import Library, OwnCall
from peers import PeerCall
from shapes import DETERMINISTIC, Task
from timing import Stopwatch, time_calls

CACHE_BYTES_TIMES = 8  # what is rotated through is that many times the L2 cache
MOST_SETS = 4
USUAL_L2 = 50 * 2 ** 20
# Results, and how many times the operations of a forward pass.
PASSES = {'forward': (('output', 'lse'), 1), 'backward': (('d_q', 'd_k', 'd_v'), 2.5)}
ANY_ORDER = 1e-4  # float32 sums in another order, relative to the largest
PEER_SHARE = 4  # others have rules of their own: only what is quite wrong is left out
EVERYWHERE_TIMES = 4  # plain float32 has an error of its own, and all heads have larger ones than two


@dataclass
class Options:
    device: str
    library: str
    warm_up_ms: float
    batch_ms: float
    batches: int
    profile: bool
    layout: str
    family: str
    deterministic: str


class Worker:
    def __init__(self, torch, options, tell):
        self.torch, self.options, self.tell = torch, options, tell
        self.watch = Stopwatch(torch, options.device)
        self.library = None
        self.kept = {}

    def environment(self):
        torch = self.torch
        found = {'pytorch': torch.__version__}
        if self.options.device != 'cpu':
            properties = torch.cuda.get_device_properties(0)
            found.update(device=properties.name, cuda=torch.version.cuda, cudnn=str(torch.backends.cudnn.version()))
        return found

    def own_library(self):
        if self.library is None:
            self.library = Library(self.options.library)
        return self.library

    def keep(self, key, make):
        """What tasks of one shape share; that of other shapes is let go."""
        shape, name = key
        if self.kept.get('shape') != shape:
            self.kept = {'shape': shape}
            self.free()
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def free(self):
        if self.options.device != 'cpu':
            self.torch.cuda.empty_cache()

    def shape_of(self, task):
        return (task.suite == 'copy' or task.suite, task.batch, task.heads, task.key_heads, task.queries, task.length,
                task.size, task.causal)

    def inputs(self, task):
        """Sets of q, k, v, dO [B,H,N,D], together larger than the cache."""
        torch, device = self.torch, self.options.device
        l2 = 0 if device == 'cpu' else getattr(torch.cuda.get_device_properties(0), 'L2_cache_size', USUAL_L2)
        size = task.keys_bytes() + 8 * task.batch * task.heads * task.queries * task.size
        sets = max(1, min(MOST_SETS, -(-CACHE_BYTES_TIMES * l2 // size)))
        generator = torch.Generator(device=device).manual_seed(task.length + task.size)

        def tensor(heads, length):
            if self.options.layout == 'bnhd':
                shape = (task.batch, length, heads, task.size)
                return torch.randn(shape, generator=generator, device=device).transpose(1, 2)
            return torch.randn((task.batch, heads, length, task.size), generator=generator, device=device)

        return [(tensor(task.heads, task.queries), tensor(task.key_heads, task.length),
                 tensor(task.key_heads, task.length), tensor(task.heads, task.queries)) for _ in range(sets)]

    def make_call(self, task, inputs, has_gradient=True):
        q, k, v, d_o = inputs
        d_o = d_o if has_gradient else None
        if task.kind == 'flash':
            return OwnCall(self.torch, self.own_library(), q, k, v, d_o, task.causal, task.compute,
                           self.options.family)
        return PeerCall(self.torch, task.kind, q, k, v, d_o, task.causal, task.compute)

    def allocated(self, is_peak=False):
        cuda = self.torch.cuda
        if self.options.device == 'cpu':
            return 0
        return cuda.max_memory_allocated() if is_peak else cuda.memory_allocated()

    # Attention.

    def expected(self, task, inputs, call):
        """For the first and the last head what it should give, and everything by plain float32."""
        torch = self.torch
        q, k, v, d_o = inputs

        def make():
            places = dict.fromkeys([(0, 0), (task.batch - 1, task.heads - 1)])
            heads = []
            for place in places:
                of_head = [x[place] for x in (q, k, v, d_o)]
                statistics = None
                if task.series == 'long' and task.kind == 'flash':
                    # Exact ones of a million rows would take longer than the rest: those of the call, which are judged.
                    lse = call.lse[place].double() + call.lse_tail[place]
                    statistics = lse, (call.output[place].double() * of_head[3]).sum(1)
                heads.append((place, Expected(torch, *of_head, task.causal, count=32 if task.series == 'long' else 128,
                                              statistics=statistics)))
            everywhere = None if task.series == 'long' else plain_everywhere(torch, q, k, v, d_o, task.causal)
            return heads, everywhere

        return self.keep((self.shape_of(task), 'expected'), make)

    def check(self, task, inputs, call, names):
        """The largest error as a share of the allowed and times that of plain attention, and what is wrong, or ''."""
        heads, everywhere = self.expected(task, inputs, call)
        shares, times_plain, wrong = {}, 0, []
        for place, expected in heads:
            found = {name: getattr(call, name)[place] for name in names if getattr(call, name, None) is not None}
            of_allowed, of_plain = expected.judge(task.compute, found)
            times_plain = max(times_plain, *of_plain.values())
            for name, share in of_allowed.items():
                shares[name] = max(shares.get(name, 0), share)
        for name, share in shares.items():
            if not share <= (1 if task.kind == 'flash' else PEER_SHARE):
                wrong.append(f'{name} errs by {share:.3g} times the allowed')
            if everywhere and name in everywhere:
                allowed = max(expected.allowed(task.compute)[name] for _, expected in heads)
                of_rows = (getattr(call, name).float() - everywhere[name]).abs().amax(3)
                of_rows = self.torch.where(of_rows.isfinite(), of_rows, float('inf'))
                error = of_rows.amax(2)
                limit = 1 if task.kind == 'flash' else PEER_SHARE
                if not error.max().item() <= EVERYWHERE_TIMES * allowed * limit:
                    # Some rows have larger errors than those that were looked at, plain float32's among them: the rows
                    # of that head that differ most are judged by their own.
                    at = error.argmax().item()
                    place = at // task.heads, at % task.heads
                    rows = of_rows[place].topk(min(64, of_rows.shape[2])).indices.sort().values
                    judge = Expected(self.torch, *[x[place] for x in inputs], task.causal, rows=rows)
                    share = judge.judge(task.compute, {name: getattr(call, name)[place]})[0][name]
                    shares[name] = max(shares[name], share)
                    if not share <= limit:
                        wrong.append(f'{name} of batch {place[0]}, head {place[1]} differs by {error.max().item():.3g} '
                                     f'from plain float32 and errs by {share:.3g} times the allowed')
        return {'share': max(shares.values()), 'timesPlain': times_plain}, '; '.join(wrong)

    def time(self, call):
        options = self.options
        return time_calls(self.watch, call, options.warm_up_ms, options.batch_ms, options.batches)

    def time_pass(self, calls, name, kernels_alone):
        return self.time(lambda n: getattr(calls[n % len(calls)], name)(kernels_alone))

    def same_without_conversions(self, call, name, results, deterministic):
        """Whether nothing is left out but what an earlier call has done: what is wrong, or ''. The same bits, but of dQ
        that is added in any order."""
        before = [getattr(call, result).clone() for result in results]
        launched = call.library.launched()
        for result in results:
            getattr(call, result).fill_(float('nan'))
        getattr(call, name)(True)
        self.watch.wait()
        if not call.library.launched() or len(call.library.launched()) >= len(launched):
            return f'{name} without conversions launched {len(call.library.launched())} of {len(launched)} kernels'
        for result, bits in zip(results, before):
            now = getattr(call, result)
            if deterministic or result != 'd_q':
                is_same = self.torch.equal(bits.view(self.torch.int32), now.view(self.torch.int32))
            else:
                is_same = (bits - now).abs().max().item() <= ANY_ORDER * bits.abs().max().item()
            if not is_same:
                return f'{name} without conversions gives another {result}'
        return ''

    def attention(self, task):
        torch = self.torch
        sets = self.keep((self.shape_of(task), 'inputs'), lambda: self.inputs(task))
        is_own = task.kind == 'flash'
        if task.series != 'long':
            self.expected(task, sets[0], None)  # so that it is no part of what the call takes
        before = self.allocated()
        calls = [self.make_call(task, inputs) for inputs in sets]
        before = before if is_own else self.allocated()
        if self.options.device != 'cpu':
            torch.cuda.reset_peak_memory_stats()
        row = {'kind': task.kind, 'batch': task.batch, 'heads': task.heads, 'length': task.length,
               'headSize': task.size, 'causal': task.causal, 'series': task.series, 'computeType': task.compute}
        peak = 0
        with calls[0].context():
            launched = []
            for name, deterministic in (('forward', True), *(
                    ('backward', one) for one in DETERMINISTIC[self.options.deterministic if is_own else 'yes'])):
                results, flops = PASSES[name]
                for call in calls:
                    call.begin(deterministic)
                getattr(calls[0], name)(False)
                self.watch.wait()
                if is_own:
                    if calls[0].library.launched() == launched:
                        continue  # the same kernels as when they must be deterministic
                    launched = calls[0].library.launched()
                peak = max(peak, self.allocated(True) - before)
                errors, wrong = self.check(task, sets[0], calls[0], results)
                if is_own:
                    wrong = wrong or self.same_without_conversions(calls[0], name, results, deterministic)
                for call in calls[1:]:
                    getattr(call, name)(False)
                # Ours once more with the conversions from float32: their results must be in the workspaces before.
                for conversions in (False, True) if is_own else (False,):
                    timing = self.time_pass(calls, name, not conversions)
                    own = {'conversions': conversions, 'kernels': calls[0].library.launched()} if is_own else {}
                    self.tell({'type': 'row', 'row': {
                        **row, 'pass': name, **own, **timing, **errors,
                        'tflops': flops * task.forward_flops() / timing['medianMs'] / 1e9,
                        **({} if deterministic else {'deterministic': False}),
                        **({'wrong': wrong} if wrong else {}),
                        **({'peakBytes': peak} if name == 'backward' and len(sets) == 1 else {})}})
                if is_own and self.options.profile:
                    self.profile(task, calls, name)
                if self.options.device != 'cpu':
                    torch.cuda.reset_peak_memory_stats()

    def profile(self, task, calls, name):
        library = self.own_library()
        library.profiled()
        library.profile(True)
        for n in range(5):
            getattr(calls[n % len(calls)], name)(False)
        library.profile(False)
        self.tell({'type': 'profile', 'pass': name, 'kernels': [
            [kernel, count / 5, ms / 5] for kernel, count, ms in library.profiled()]})

    # Decoding: one query over cached keys, as many bytes a second as a copy?

    def decode(self, task):
        torch = self.torch
        sets = self.keep((self.shape_of(task), 'inputs'), lambda: self.inputs(task))
        if task.kind != 'flash':
            # The query heads that share a key head are rows of one matrix, so that nothing is repeated.
            grouped = (task.batch, task.key_heads, task.heads // task.key_heads, task.size)
            sets = [(q.reshape(grouped), k, v, None) for q, k, v, _ in sets]
        calls = [self.make_call(task, inputs, has_gradient=False) for inputs in sets]
        row = {'kind': task.kind, 'computeType': task.compute, 'keys': task.length, 'queryHeads': task.heads,
               'keyHeads': task.key_heads, 'headSize': task.size}
        with calls[0].context():
            calls[0].forward(False)
            self.watch.wait()
            dtype = torch.bfloat16 if task.compute == 'bfloat16' else torch.float32
            exact, plain = self.attend_plainly(task, sets[0], torch.float64), self.attend_plainly(task, sets[0], dtype)
            output = calls[0].output.reshape(exact.shape).double()
            plain_error, error = [largest_error(x, exact) for x in (plain, output)]
            floor = 0 if dtype == torch.bfloat16 else FLOOR * sets[0][2].abs().max().item()
            share = error / (2 * plain_error + floor)
            timing = self.time_pass(calls, 'forward', False)
        self.tell({'type': 'row', 'row': {
            **row, **timing, 'share': share, 'timesPlain': error / plain_error,
            **({} if share <= 1 else {'wrong': f'errs by {share:.3g} times the allowed'}),
            'gigabytesPerSecond': task.keys_bytes(2 if dtype == torch.bfloat16 else 4) / timing['medianMs'] / 1e6}})

    def attend_plainly(self, task, inputs, dtype):
        """[key heads, query heads of each, D], every op in that type."""
        q, k, v = [x[0].to(dtype) for x in inputs[:3]]
        scores = q.reshape(task.key_heads, -1, task.size) @ k.transpose(1, 2) * task.size ** -0.5
        return self.torch.softmax(scores, 2) @ v

    def copy(self, task):
        """From one buffer to another of as many bytes as k and v; bytes read and written count."""
        torch = self.torch
        new = lambda: torch.zeros(task.keys_bytes() // 4, device=self.options.device)
        buffers = [(new(), new()), (new(), new())]
        timing = self.time(lambda n: buffers[n % 2][1].copy_(buffers[n % 2][0]))
        self.tell({'type': 'row', 'row': {
            'kind': 'copy', 'keys': 0, 'queryHeads': 0, 'keyHeads': 0, 'headSize': 0, **timing,
            'gigabytesPerSecond': 2 * task.keys_bytes() / timing['medianMs'] / 1e6}})

    def perform(self, task):
        getattr(self, task.suite)(task)

    def is_usable(self):
        try:
            self.watch.wait()
            self.torch.zeros(1, device=self.options.device).add_(1).item()
            return True
        except Exception:
            return False


def main():
    options = Options(**json.loads(sys.argv[1]))
    answers = os.fdopen(int(sys.argv[2]), 'w')

    def tell(message):
        answers.write(json.dumps(message) + '\n')
        answers.flush()

    import torch
    worker = Worker(torch, options, tell)
    tell({'type': 'ready', 'environment': worker.environment()})
    for line in sys.stdin:
        task = Task(**json.loads(line))
        try:
            worker.perform(task)
            tell({'type': 'done'})
        except Exception as error:  # of the kernels or of PyTorch: whatever it is, the next task may go well
            lines = str(error).strip().splitlines() or ['']
            is_usable = worker.is_usable()
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = f'{type(error).__name__}: {lines[0][:200]} ({os.path.basename(where.filename)}:{where.lineno})'
            if isinstance(error, torch.OutOfMemoryError):
                why = 'out of memory'
            tell({'type': 'failed', 'why': why, 'ends': not is_usable})
            if not is_usable:
                answers.flush()
                os._exit(3)  # a context that is lost has nothing to be tidied up
        worker.free()


if __name__ == '__main__':
    main()
