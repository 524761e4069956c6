"""Writes test/fixtures/torch_goldens.json: what PyTorch computes, for the float64 reference and the rotary embedding.

    python3 -m venv /tmp/torch-venv
    /tmp/torch-venv/bin/pip install numpy torch==2.13.0
    /tmp/torch-venv/bin/python scripts/make_torch_goldens.py

PyTorch computes in float64 here, with autograd, from inputs that are multiples of 1/64 and so the same in float32. The
fixture holds their seeds, and test/unit/torch_goldens.spec.ts draws them again with the same generator.

The output comes from scaled_dot_product_attention wherever it has the option, and is checked here against the softmax
written out; where it has not (softcap, sinks) it comes from the latter. So does the LSE, which
scaled_dot_product_attention does not return.
"""
import json
import math
import pathlib

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

OUTPUT = pathlib.Path(__file__).parent.parent / "test/fixtures/torch_goldens.json"
B, HQ, HKV, D, DV = 2, 4, 2, 4, 3


class Random:
    """test/support/random.ts: mulberry32."""

    def __init__(self, seed):
        self.state = seed

    def integer(self, below):
        self.state = (self.state + 0x6D2B79F5) & 0xFFFFFFFF
        t = self.state
        t = (t ^ (t >> 15)) * (t | 1) & 0xFFFFFFFF
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & 0xFFFFFFFF)) & 0xFFFFFFFF
        return (t ^ (t >> 14)) * below >> 32

    def sixty_fourths(self, *shape):
        """Multiples of 1/64 from -2 to 2, as sixtyFourths of the TypeScript class."""
        values = [(self.integer(256) - 128) / 64 for _ in range(math.prod(shape))]
        return torch.tensor(values, dtype=torch.float64).reshape(shape)


def rounded(tensor):
    """Flat, with 13 digits; -inf as null, which JSON has."""
    return [None if x == -math.inf else float(f"{x:.13g}") for x in tensor.detach().double().flatten().tolist()]


def attention_case(seed, name, nq, nk, hq=HQ, hkv=HKV, d=D, dv=DV, **options):
    """One call, forward and backward. Options by the names of the op, and what they are drawn as:

    bias, mask: own shape; bias_hides: a quarter of the bias' entries are -inf; alibi: 'head' or 'batch'; sinks: True.
    """
    case = {"name": name, "seed": seed, "batch": B, "queryLength": nq, "keyLength": nk, "queryHeads": hq,
            "keyHeads": hkv, "headSize": d, "valueSize": dv, "causal": False, "causalAlignment": "bottom-right",
            "softmaxScale": 1 / math.sqrt(d), **options}
    random = Random(seed)
    # In the op's layout, [B,N,H,size]; below in PyTorch's, [B,H,N,size].
    shapes = {"q": (B, nq, hq, d), "k": (B, nk, hkv, d), "v": (B, nk, hkv, dv), "dO": (B, nq, hq, dv)}
    drawn = {key: random.sixty_fourths(*shape) for key, shape in shapes.items()}
    d_lse = random.sixty_fourths(B, hq, nq)
    leaves = {key: drawn[key].requires_grad_() for key in ("q", "k", "v")}
    if "bias" in options:
        bias = random.sixty_fourths(*options["bias"])
        if options.get("bias_hides"):
            bias = torch.where(random.sixty_fourths(*options["bias"]) < -1, -math.inf, bias)
        leaves["bias"] = bias.requires_grad_()
    mask = random.sixty_fourths(*options["mask"]) >= -1 if "mask" in options else None
    if "alibi" in options:
        slopes = random.sixty_fourths(*((hq,) if options["alibi"] == "head" else (B, hq))) / 4
        slopes = slopes.expand(B, hq)
    if "sinks" in options:
        leaves["sinks"] = random.sixty_fourths(hq).requires_grad_()
    q, k, v, d_out = (drawn[key].transpose(1, 2) for key in shapes)

    outputs, lses = torch.zeros(B, hq, nq, dv, dtype=torch.float64), torch.full((B, hq, nq), -math.inf).double()
    loss = 0
    for b in range(B):
        rows = options.get("queryLengths", [nq] * B)[b]
        keys = options.get("keyLengths", [nk] * B)[b]
        offset = keys - rows if case["causalAlignment"] == "bottom-right" else 0
        position = torch.arange(rows)[:, None] + offset
        column = torch.arange(keys)[None, :]
        left, right = options.get("windowSize", (-1, -1))
        right = 0 if case["causal"] else right
        seen = torch.ones(1, hq, rows, keys, dtype=torch.bool)
        if left >= 0:
            seen = seen & (column >= position - left)
        if right >= 0:
            seen = seen & (column <= position + right)
        if mask is not None:
            seen = seen & mask.expand(B, hq, nq, nk)[b:b + 1, :, :rows, :keys]
        added = torch.zeros(1, hq, rows, keys, dtype=torch.float64)
        if "alibi" in options:
            added = added - slopes[b][None, :, None, None] * (position - column).abs()
        if "bias" in options:
            added = added + leaves["bias"].expand(B, hq, nq, nk)[b:b + 1, :, :rows, :keys]
        seen = seen & (added > -math.inf)
        qb, kb, vb = q[b:b + 1, :, :rows], k[b:b + 1, :, :keys], v[b:b + 1, :, :keys]
        output, lse = written_out(qb, kb, vb, seen, added, case["softmaxScale"], options.get("softcap", 0),
                                  leaves.get("sinks"))
        if "softcap" not in options and "sinks" not in options and rows * keys > 0:
            sdpa = by_sdpa(qb, kb, vb, seen, added, case)
            assert torch.allclose(sdpa, output, rtol=1e-12, atol=1e-13), name
            output = sdpa
        defined = lse.detach() > -math.inf
        loss = loss + (output * d_out[b:b + 1, :, :rows]).sum() + (lse * d_lse[b:b + 1, :, :rows])[defined].sum()
        outputs[b, :, :rows] = output[0].detach()
        lses[b, :, :rows] = lse[0].detach()
    if "sinks" in options:
        # Rows past the length see no key, but the sink.
        for b, rows in enumerate(options.get("queryLengths", [nq] * B)):
            lses[b, :, rows:] = leaves["sinks"].detach()[:, None]
            loss = loss + (leaves["sinks"][:, None] * d_lse[b, :, rows:]).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    assert all(torch.isfinite(g).all() for g in gradients), name
    case["output"] = rounded(outputs.transpose(1, 2))
    case["lse"] = rounded(lses)
    for key, gradient in zip(leaves, gradients):
        case["d" + key[0].upper() + key[1:]] = rounded(gradient)
    return case


def written_out(q, k, v, seen, added, scale, softcap, sinks):
    """Softmax attention and the log-sum-exp of each row; rows that see nothing give 0 and -inf, or their sink."""
    group = q.shape[1] // k.shape[1]
    scores = scale * q @ k.repeat_interleave(group, 1).transpose(-1, -2)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = torch.where(seen, scores + torch.where(seen, added, 0), -math.inf)
    if sinks is not None:
        # As gpt-oss: one more column, that takes its share of the softmax and is dropped.
        column = sinks[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
        return torch.softmax(scores, -1)[..., :-1] @ v.repeat_interleave(group, 1), torch.logsumexp(scores, -1)
    some = seen.any(-1, keepdim=True).expand_as(seen)
    defined = torch.where(some, scores, 0)
    weights = torch.where(some, torch.softmax(defined, -1), 0)
    lse = torch.where(some.any(-1), torch.logsumexp(defined, -1), -math.inf)
    return weights @ v.repeat_interleave(group, 1), lse


def by_sdpa(q, k, v, seen, added, case):
    arguments = {"scale": case["softmaxScale"], "enable_gqa": case["queryHeads"] != case["keyHeads"]}
    if case.get("bias") or case.get("alibi"):
        return scaled_dot_product_attention(q, k, v, torch.where(seen, added, -math.inf), **arguments)
    if seen.all():
        return scaled_dot_product_attention(q, k, v, **arguments)
    if case["causal"] and not {"mask", "windowSize"} & case.keys():
        if case["causalAlignment"] == "top-left":
            return scaled_dot_product_attention(q, k, v, is_causal=True, **arguments)
        if q.shape[2] <= k.shape[2]:
            bias = causal_lower_right(q.shape[2], k.shape[2])
            return scaled_dot_product_attention(q, k, v, bias, **arguments)
    return scaled_dot_product_attention(q, k, v, seen, **arguments)


def rotary_case(seed, name, interleaved, n, d, r, offset):
    """Queries or keys [B,N,H,D], of which the first R elements turn; tables [L,R/2] in float32."""
    heads, length = 2, n + offset + 2
    angles = torch.outer(torch.arange(length).double(), 10000.0 ** (-torch.arange(0, r, 2).double() / r))
    cos, sin = angles.cos().float().double(), angles.sin().float().double()
    random = Random(seed)
    x = random.sixty_fourths(B, n, heads, d).requires_grad_()
    d_out = random.sixty_fourths(B, n, heads, d)
    at = slice(offset, offset + n)
    if interleaved:  # GPT-J: each even element with the odd one after it, as complex numbers
        turn = torch.complex(cos[at], sin[at])[None, :, None, :]
        pairs = torch.view_as_complex(x[..., :r].reshape(B, n, heads, r // 2, 2))
        turned = torch.view_as_real(pairs * turn).reshape(B, n, heads, r)
    else:  # GPT-NeoX: each element of the first half with its like of the second
        first, second = x[..., :r].chunk(2, -1)
        c, s = (table[at].repeat(1, 2)[None, :, None, :] for table in (cos, sin))
        turned = x[..., :r] * c + torch.cat([-second, first], -1) * s
    output = torch.cat([turned, x[..., r:]], -1)
    gradient, = torch.autograd.grad((output * d_out).sum(), x)
    nine_digits = lambda table: [float(f"{x:.9g}") for x in table.flatten().tolist()]  # noqa: E731
    return {"name": name, "seed": seed, "shape": [B, n, heads, d], "interleaved": interleaved, "offset": offset,
            "tableShape": [length, r // 2], "cos": nine_digits(cos), "sin": nine_digits(sin),
            "output": rounded(output), "dX": rounded(gradient)}


TOP_LEFT = {"causalAlignment": "top-left"}
ATTENTION = [
    ("no options, one key head for each query head", 5, 7, {"hkv": HQ}),
    ("grouped heads", 5, 7, {}),
    ("one key head, scale of its own", 5, 7, {"hkv": 1, "softmaxScale": 0.75}),
    ("causal top-left, fewer queries", 5, 7, {"causal": True, **TOP_LEFT}),
    ("causal top-left, fewer keys", 7, 5, {"causal": True, **TOP_LEFT}),
    ("causal bottom-right, fewer queries", 5, 7, {"causal": True}),
    ("causal bottom-right, fewer keys: the first rows see none", 7, 5, {"causal": True}),
    ("boolean mask", 5, 7, {"mask": [B, 1, 5, 7]}),
    ("boolean mask of whole rows and of heads", 6, 5, {"mask": [1, HQ, 6, 1], "hkv": HQ}),
    ("float mask", 5, 7, {"bias": [B, HQ, 5, 7]}),
    ("float mask of keys", 5, 7, {"bias": [B, 1, 1, 7], "hkv": HQ}),
    ("float mask of queries and heads, causal", 5, 7, {"bias": [1, HQ, 5, 1], "causal": True}),
    ("float mask with -inf", 5, 7, {"bias": [1, HQ, 5, 7], "bias_hides": True}),
    ("ALiBi", 5, 7, {"alibi": "head"}),
    ("ALiBi by batch, causal", 6, 5, {"alibi": "batch", "causal": True}),
    ("ALiBi top-left", 7, 5, {"alibi": "head", **TOP_LEFT}),
    ("softcap", 5, 7, {"softcap": 0.8}),
    ("softcap, causal, float mask", 5, 7, {"softcap": 1.5, "causal": True, "bias": [1, 1, 5, 7]}),
    ("sliding window", 6, 8, {"windowSize": [2, 1]}),
    ("sliding window top-left, some rows see none", 8, 5, {"windowSize": [1, 0], **TOP_LEFT}),
    ("sliding window open to the right", 6, 8, {"windowSize": [1, -1]}),
    ("lengths of both, causal", 6, 8, {"queryLengths": [4, 6], "keyLengths": [7, 3], "causal": True}),
    ("lengths of both, one empty, ALiBi, window", 6, 8,
     {"queryLengths": [5, 3], "keyLengths": [6, 0], "alibi": "head", "windowSize": [3, 2]}),
    ("sinks", 5, 7, {"sinks": True}),
    ("sinks, causal, sliding window, as gpt-oss", 7, 7, {"sinks": True, "causal": True, "windowSize": [2, 0]}),
    ("sinks, causal with empty rows", 7, 5, {"sinks": True, "causal": True}),
    ("everything", 6, 8,
     {"sinks": True, "softcap": 2, "alibi": "batch", "bias": [B, HQ, 6, 8], "bias_hides": True, "mask": [B, 1, 6, 8],
      "windowSize": [4, 2], "queryLengths": [6, 4], "keyLengths": [5, 8]}),
]
ROTARY = [
    ("GPT-NeoX", False, 5, 8, 8, 0),
    ("GPT-NeoX, part of the head, later positions", False, 4, 10, 6, 3),
    ("GPT-J", True, 5, 8, 8, 0),
    ("GPT-J, part of the head, later positions", True, 4, 10, 6, 3),
]

fixture = {
    "made_by": "scripts/make_torch_goldens.py",
    "versions": {"torch": torch.__version__},
    "attention": [attention_case(100 + n, name, nq, nk, **options)
                  for n, (name, nq, nk, options) in enumerate(ATTENTION)],
    "rotary": [rotary_case(200 + n, *arguments) for n, arguments in enumerate(ROTARY)],
}
OUTPUT.write_text(json.dumps(fixture, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes, {len(ATTENTION)} attentions, {len(ROTARY)} rotary embeddings")
