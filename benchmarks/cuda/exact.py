"""Attention of a few rows of one head in any precision: float64 as the reference, the precision of a kernel as what
plain attention makes of it, by which the kernel is judged (test/support/error_budget.ts): its largest error may be
twice that of plain attention, and in float32 a few roundings of the terms that a result is summed from more."""
import contextlib

ROW_CHUNK = 1024
FLOOR = 4 * 2 ** -24  # of float32; that of 16 bits would let pass what is wrong in sums of thousands of terms
DTYPES = {'float32': 'float32', 'tensorfloat32': 'float32', 'float16': 'float16', 'bfloat16': 'bfloat16'}


@contextlib.contextmanager
def products(torch, compute):
    """Whether float32 products of PyTorch are rounded to tensorfloat32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high' if compute == 'tensorfloat32' else 'highest')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def scores_of(torch, q, k, rows, columns, causal):
    """S of some rows and some columns, as plain ops of q's type make them; −∞ where hidden. One sequence: Nq = Nk."""
    scores = (q @ k.T) * q.shape[1] ** -0.5
    return scores.masked_fill(columns[None, :] > rows[:, None], float('-inf')) if causal else scores


def row_statistics(torch, q, k, v, d_o, causal):
    """LSE and D = rowsum(dO∘O) of all rows of a head [N,D], float64."""
    length = q.shape[0]
    columns = torch.arange(length, device=q.device)
    k, v = k.double(), v.double()
    lse, delta = [], []
    for first in range(0, length, ROW_CHUNK):
        rows = columns[first:first + ROW_CHUNK]
        seen = first + len(rows) if causal else length
        scores = scores_of(torch, q[rows].double(), k[:seen], rows, columns[:seen], causal)
        lse.append(torch.logsumexp(scores, 1))
        output = torch.softmax(scores, 1) @ v[:seen]
        delta.append((output * d_o[rows].double()).sum(1))
    return torch.cat(lse), torch.cat(delta)


def attend_rows(torch, q, k, v, d_o, rows, causal, dtype):
    """O, LSE and dQ of some rows of a head, every op in `dtype`."""
    columns = torch.arange(k.shape[0], device=q.device)
    k, v, d_o = k.to(dtype), v.to(dtype), d_o[rows].to(dtype)
    q = q[rows].to(dtype).requires_grad_()
    with torch.enable_grad():
        scores = scores_of(torch, q, k, rows, columns, causal)
        output = torch.softmax(scores, 1) @ v
    d_q, = torch.autograd.grad(output, q, d_o)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {'output': output.detach(), 'lse': torch.logsumexp(scores.detach().to(wide), 1), 'd_q': d_q}


def attend_columns(torch, q, k, v, d_o, lse, delta, columns, causal, dtype):
    """dK and dV of some keys of a head; LSE and D of all its rows are given in float64."""
    rows = torch.arange(q.shape[0], device=q.device)
    q, d_o, k, v = q.to(dtype), d_o.to(dtype), k[columns].to(dtype), v[columns].to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scores = scores_of(torch, q, k, rows, columns, causal)
    weights = torch.exp((scores.double() - lse[:, None]).to(wide)).to(dtype)
    d_scores = weights * ((d_o @ v.T) - delta[:, None].to(dtype))
    return {'d_v': weights.T @ d_o, 'd_k': (d_scores.T @ q) * q.shape[1] ** -0.5}


def magnitudes(torch, q, k, v, d_o, lse, delta, rows, causal):
    """The largest Σ|terms| of each result of these rows and keys, float64."""
    q, k, v, d_o = [x.double() for x in (q, k, v, d_o)]
    scale = q.shape[1] ** -0.5
    everyone = torch.arange(q.shape[0], device=q.device)

    def terms(queries, keys):
        weights = torch.exp(scores_of(torch, q[queries], k[keys], queries, keys, causal) - lse[queries, None])
        return weights, weights * (d_o[queries].abs() @ v[keys].abs().T + delta[queries, None].abs())

    weights, d_scores = terms(rows, everyone)
    found = {'output': weights @ v.abs(), 'd_q': d_scores @ k.abs() * scale,
             'lse': q[rows].abs() @ k.abs().T * scale}
    weights, d_scores = terms(everyone, rows)
    found.update(d_v=weights.T @ d_o.abs(), d_k=d_scores.T @ q.abs() * scale)
    return {name: x.max().item() for name, x in found.items()}


def sampled(torch, length, count, device):
    """Rows to look at: the first and the last, and some between."""
    if length <= 3 * count:
        return torch.arange(length, device=device)
    generator = torch.Generator().manual_seed(length)
    between = count + torch.randperm(length - 2 * count, generator=generator)[:count]
    return torch.cat([torch.arange(count), between.sort().values, torch.arange(length - count, length)]).to(device)


class Expected:
    """What a head of a call should give, at some rows and keys, and what plain attention of each precision errs by."""

    def __init__(self, torch, q, k, v, d_o, causal, count=128, statistics=None, rows=None):
        self.torch, self.inputs, self.causal = torch, (q, k, v, d_o), causal
        self.rows = sampled(torch, q.shape[0], count, q.device) if rows is None else rows
        self.statistics = statistics or row_statistics(torch, q, k, v, d_o, causal)
        self.values = self._attend(torch.float64)
        self._plain, self._allowed = {}, {}

    def _attend(self, dtype):
        torch, (q, k, v, d_o) = self.torch, self.inputs
        return {**attend_rows(torch, q, k, v, d_o, self.rows, self.causal, dtype),
                **attend_columns(torch, q, k, v, d_o, *self.statistics, self.rows, self.causal, dtype)}

    def _errors(self, actual):
        return {name: largest_error(x, self.values[name]) for name, x in actual.items()}

    def allowed(self, compute):
        """The largest error of each result that passes."""
        if compute not in self._allowed:
            with products(self.torch, compute):
                plain = self._errors(self._attend(getattr(self.torch, DTYPES[compute])))
            terms = dict.fromkeys(plain, 0)
            if compute == 'float32':
                terms = magnitudes(self.torch, *self.inputs, *self.statistics, self.rows, self.causal)
            self._plain[compute] = plain
            self._allowed[compute] = {name: 2 * error + FLOOR * terms[name] for name, error in plain.items()}
        return self._allowed[compute]

    def judge(self, compute, results):
        """
        The error of each whole result [N,…] of the head, as a share of the allowed and as so many times that of plain
        attention; NaN counts as infinite.
        """
        allowed = self.allowed(compute)
        errors = self._errors({name: x[self.rows] for name, x in results.items()})
        return [{name: error / max(of[name], 1e-30) for name, error in errors.items()}
                for of in (allowed, self._plain[compute])]


def largest_error(actual, expected):
    error = (actual.double() - expected).abs().max().item()
    return error if error == error else float('inf')


def plain_everywhere(torch, q, k, v, d_o, causal, most_scores=2 ** 28):
    """O, dQ, dK, dV of all of [B,H,N,D] by plain float32 ops, as many heads at once as their scores leave room for."""
    batch, heads, length, size = q.shape
    at_once = max(1, most_scores // length ** 2)
    flat = lambda x: x.reshape(batch * heads, length, x.shape[3])
    inputs = [flat(x) for x in (q, k, v, d_o)]
    results = [torch.empty_like(x) for x in (inputs[2], *inputs[:3])]
    hidden = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1) if causal else None
    scale = size ** -0.5
    with products(torch, 'float32'):
        for first in range(0, batch * heads, at_once):
            part = slice(first, first + at_once)
            q, k, v, d_o = [x[part] for x in inputs]
            weights = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
            if causal:
                weights.masked_fill_(hidden, float('-inf'))
            weights = torch.softmax(weights, 2)
            output = torch.bmm(weights, v)
            results[0][part] = output
            results[3][part] = torch.bmm(weights.transpose(1, 2), d_o)
            d_scores = torch.bmm(d_o, v.transpose(1, 2)).sub_((d_o * output).sum(2, keepdim=True)).mul_(weights)
            results[1][part] = torch.bmm(d_scores, k).mul_(scale)
            results[2][part] = torch.bmm(d_scores.transpose(1, 2), q).mul_(scale)
    return dict(zip(('output', 'd_q', 'd_k', 'd_v'), [x.reshape(batch, heads, length, -1) for x in results]))
