"""Results as the other benchmarks leave them (benchmarks/core/results.ts), by device, and as tables to read."""
import json
import os
import re

# What tells two rows of a file apart.
IDENTITY = ('kind', 'pass', 'deterministic', 'conversions', 'batch', 'heads', 'length', 'headSize', 'causal',
            'computeType', 'keys', 'queryHeads', 'keyHeads')
SHORT = {'flash': 'ours', 'flash-attention-2': 'fa2', 'cudnn': 'cudnn', 'efficient': 'effic', 'math': 'math'}
SHORT_TYPE = {'bfloat16': 'bf16', 'float16': 'f16', 'float32': 'f32', 'tensorfloat32': 'tf32'}


def slug(text):
    """As benchmarks/core/slug.ts."""
    return re.sub(r'^-|-$', '', re.sub(r'[^a-z0-9]+', '-', text.lower()))[:60]


class ResultsFile:
    """Written anew with every row. Rows of the same commit and device stay until they are measured again."""

    def __init__(self, folder, suite, environment):
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, f'{suite}-{slug(environment["device"])}.json')
        old = {}
        if os.path.exists(self.path):
            with open(self.path) as file:
                old = json.load(file)
        same = all(old.get('environment', {}).get(name) == environment[name] for name in ('commit', 'device'))
        self.contents = {'environment': environment, 'results': old['results'] if same else [],
                         'skipped': old['skipped'] if same else []}

    def add(self, label, row):
        identity = [row.get(name) for name in IDENTITY]
        kept = [other for other in self.contents['results'] if [other.get(name) for name in IDENTITY] != identity]
        self.contents['results'] = kept + [row]
        # What was said of the whole task, too.
        self.contents['skipped'] = [one for one in self.contents['skipped'] if not label.startswith(one['label'])]
        self._write()

    def skip(self, label, why):
        kept = [one for one in self.contents['skipped'] if one['label'] != label]
        self.contents['skipped'] = kept + [{'label': label, 'why': why}]
        self._write()

    def _write(self):
        part = self.path + '.part'
        with open(part, 'w') as file:
            json.dump(self.contents, file, indent=1, allow_nan=False)
            file.write('\n')
        os.replace(part, self.path)


def speed(tflops):
    return f'{tflops:.0f}' if tflops >= 99.5 else f'{tflops:.1f}'


def cell(rows, kind, name, deterministic=None):
    """`ours.w 400 (380)`: kernels alone, and with conversions; `!`: the results are wrong; `~`: spread over 10%."""
    found = [row for row in rows if row['kind'] == kind and row['pass'] == name and
             row.get('deterministic') == deterministic]
    text = {row.get('conversions', False): speed(row['tflops']) + ('!' if 'wrong' in row else '') +
            ('~' if row['spread'] > 0.1 else '') for row in found}
    if False not in text:
        return f'{SHORT[kind]} —'
    kernels = found[0].get('kernels')
    family = '' if kernels is None else '.w' if any(one.startswith('hopper') for one in kernels) else '.m'
    return f'{SHORT[kind]}{family} {text[False]}' + (f' ({text[True]})' if True in text else '')


def attention_line(task, rows, kinds):
    """One line for a group of tasks."""
    shape = f'{SHORT_TYPE[task.compute]} N{task.length} D{task.size}' + ('c' if task.causal else '')
    parts = [f'{shape:<15}'] + [f'{name[:3]} ' + ', '.join(cell(rows, kind, name) for kind in kinds)
                                for name in ('forward', 'backward')]
    if any('deterministic' in row for row in rows):
        parts.append('in any order ' + cell(rows, 'flash', 'backward', False))
    ours = [row for row in rows if row['kind'] == 'flash' and not row['conversions']]
    if ours:
        parts.append('err/allowed ' + ' '.join(f'{row["share"]:.2g}' for row in ours) + ', /plain ' +
                     ' '.join(f'{row["timesPlain"]:.2g}' for row in ours))
    if task.series == 'long':
        peaks = [row for row in rows if 'peakBytes' in row and not row.get('conversions')]
        parts.append('ms ' + ' + '.join(f'{row["medianMs"]:.0f}' for row in ours))
        parts.append('peak MiB ' + ', '.join(f'{SHORT[row["kind"]]} {row["peakBytes"] / 2 ** 20:.0f}' for row in peaks))
    return ' | '.join(parts)


def decode_line(task, row, copies):
    speed_of = lambda one: one['gigabytesPerSecond']
    text = f'{task.label()}: {row["medianMs"] * 1000:.1f} µs, {speed_of(row):.0f} GB/s'
    if task.kind != 'copy' and copies:
        text += f', {100 * speed_of(row) / speed_of(copies[-1]):.0f}% of a copy'
    return text + (f', WRONG: {row["wrong"]}' if 'wrong' in row else '')


def find(rows, **fields):
    return next((row for row in rows if all(row.get(name) == value for name, value in fields.items())), None)


# (pass, compute type, D, peer, floor of ours against it), as the project's targets have them, at N = 4096, not causal.
GOALS = [(name, 'bfloat16', size, peer, floor) for name, floors in (
    ('forward', (('flash-attention-2', 1), ('cudnn', 0.9))), ('backward', (('flash-attention-2', 1), ('cudnn', 0.8))))
         for size in (64, 128) for peer, floor in floors]
GOALS += [(name, 'float32', size, 'efficient', 1.5) for name in ('forward', 'backward') for size in (64, 128)]


def said(times, floor):
    return 'reached' if times >= floor else 'MISSED '


def goal_lines(rows):
    """How ours compares with what was aimed at: only of rows that are right."""
    lines = []
    for name, compute, size, peer, floor in GOALS:
        shape = {'pass': name, 'deterministic': None, 'computeType': compute, 'headSize': size, 'length': 4096,
                 'causal': False}
        ours, theirs = find(rows, kind='flash', conversions=False, **shape), find(rows, kind=peer, **shape)
        if ours and theirs:
            times = ours['tflops'] / theirs['tflops']
            lines.append(f'{said(times, floor)} {SHORT_TYPE[compute]} {name} D{size}: {times:.2f} of {SHORT[peer]}, '
                         f'wanted {floor}')
    lasting = [(row, find(rows, **{**{name: row.get(name) for name in IDENTITY}, 'conversions': True})) for row in rows
               if row['kind'] == 'flash' and not row['conversions'] and row['length'] >= 4096 and
               row['computeType'] == 'bfloat16']
    shares = [(other['tflops'] / row['tflops'], row) for row, other in lasting if other]
    if shares:
        share, row = min(shares, key=lambda one: one[0])
        lines.append(f'{said(share, 0.8)} bf16 with conversions, N ≥ 4096: at least {share:.2f} of the kernels alone '
                     f'({row["pass"]}, N{row["length"]} D{row["headSize"]}), wanted 0.8')
    return lines
