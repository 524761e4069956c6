"""What is measured: plain data, the most important first, each a task for a worker process."""
from dataclasses import asdict, dataclass

TOKENS, WIDTH = 16384, 2048  # B·N and H·D
LENGTHS, SIZES = (4096, 16384, 1024), (128, 64)
LONG, DECODE_KEYS = 1048576, 32768
# Of backward passes of ours, by the option.
DETERMINISTIC = {'both': (True, False), 'yes': (True,), 'no': (False,)}
COMPUTE_TYPES = ('bfloat16', 'float32', 'float16', 'tensorfloat32')

# PyTorch's kernels by compute type, as tables call them. Whatever computes from tensorfloat32 is unfused there.
PEERS = {
    'bfloat16': ('cudnn', 'flash-attention-2'), 'float16': ('cudnn', 'flash-attention-2'),
    'float32': ('efficient', 'math'), 'tensorfloat32': ('math',),
}
LONG_PEERS = ('flash-attention-2',)
DECODE_PEERS = (('bfloat16', 'flash-attention-2'), ('float32', 'efficient'), ('float32', 'math'))


@dataclass(frozen=True)
class Task:
    """One computer on one shape: several rows. suite: attention, decode or copy."""
    suite: str
    kind: str  # flash: this package
    compute: str
    batch: int
    heads: int
    key_heads: int
    queries: int
    length: int
    size: int
    causal: bool
    series: str = 'sweep'

    def group(self):
        """Tasks of one group are one line of the table."""
        return (self.suite, self.compute if self.suite == 'attention' else '', self.batch, self.heads, self.length,
                self.size, self.causal)

    def label(self):
        if self.suite == 'copy':
            return f'copy of {self.keys_bytes() >> 20} MiB'
        shape = f'B{self.batch} H{self.heads} N{self.length} D{self.size}{" causal" if self.causal else ""}'
        if self.suite == 'decode':
            shape = f'{self.length} keys, {self.heads} heads, {self.key_heads} key heads of {self.size}'
        return f'{shape} {"flashAttention" if self.kind == "flash" else self.kind} {self.compute}'

    def forward_flops(self):
        return 4 * self.batch * self.heads * self.queries * self.length * self.size / (2 if self.causal else 1)

    def keys_bytes(self, width=4):
        return 2 * self.batch * self.key_heads * self.length * self.size * width

    def json(self):
        return asdict(self)


def attention_tasks(compute, length, size, causal, tokens=TOKENS, width=WIDTH):
    heads = max(1, width // size)
    return [Task('attention', kind, compute, max(1, tokens // length), heads, heads, length, length, size, causal)
            for kind in ('flash', *PEERS[compute])]


def decode_tasks(keys):
    kinds = [('copy', 'copy', 'float32'), ('decode', 'flash', 'float32'),
             *(('decode', kind, compute) for compute, kind in DECODE_PEERS)]
    return [Task(suite, kind, compute, 1, 32, 8, 1, keys, 128, False) for suite, kind, compute in kinds]


def long_tasks(length, size, causal):
    return [Task('attention', kind, 'bfloat16', 1, 1, 1, length, length, size, causal, 'long')
            for kind in ('flash', *LONG_PEERS)]


def all_tasks(parts=('attention', 'decode', 'long'), compute_types=COMPUTE_TYPES, lengths=LENGTHS, sizes=SIZES,
              kinds=None, tokens=TOKENS, width=WIDTH, long=LONG, decode_keys=DECODE_KEYS):
    """The most important first: N = 4096 in bfloat16, decoding, float32, one long sequence, then the rest."""
    sweep = [(compute, length, causal, size) for compute in compute_types for length in lengths
             for causal in (False, True) for size in sizes]
    first = lambda compute: [one for one in sweep if one[0] == compute and one[1] == lengths[0]]
    ordered = first('bfloat16') + first('float32')
    ordered += [one for one in sweep if one[0] == 'bfloat16'] + first('float16') + first('tensorfloat32') + sweep
    tasks = []
    for n, (compute, length, causal, size) in enumerate(dict.fromkeys(ordered)):
        if n == len(first('bfloat16')):
            tasks += decode_tasks(decode_keys) if 'decode' in parts else []
            tasks += long_tasks(long, 64, False) if 'long' in parts else []
        tasks += attention_tasks(compute, length, size, causal, tokens, width) if 'attention' in parts else []
    return [task for task in tasks if kinds is None or task.kind in kinds or task.suite == 'copy']
