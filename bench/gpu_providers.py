"""dlattn and the attention kernels that PyTorch carries, each as a pair of calls on the same CUDA tensors.

A provider's `prepare(row, data)` gives forward() -> out and backward() -> the gradients (dq, dk, dv, and dbias where
there is a bias), from a forward that has been run; None where the row is one of decoding. It raises Refused where it does
not compute the problem.
"""
from __future__ import annotations

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_cases import TOKENS

DEVICE, DTYPES = "cuda", {"bf16": torch.bfloat16, "f16": torch.float16}
SEED = 1  # of dropout


class Refused(Exception):
    """This library has no kernel for the problem."""


class Data:
    """The tensors of a row, [B,S,H,D] in memory: what dlattn takes, and for PyTorch a view as [B,H,S,D]."""

    def __init__(self, row, seed: int = 0):
        generator = torch.Generator(DEVICE).manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, device=DEVICE, dtype=DTYPES[row.dtype])

        queries, keys, E = (row.B, row.M or row.S, row.H), (row.B, row.S, row.G or row.H), row.E or row.D
        self.q, self.k, self.v, self.dout = normal(*queries, row.D), normal(*keys, row.D), normal(*keys, E), normal(*queries, E)
        self.bias = normal(row.B if row.bias[0] == "b" else 1, row.H, row.S, row.S) if row.bias else None
        self.slopes = torch.tensor([2.0 ** -(1 + h % 7) for h in range(row.H)], device=DEVICE) if row.alibi else None
        self.sinks = normal(row.H) if row.sinks else None
        segment = (torch.arange(row.S, device=DEVICE, dtype=torch.int32) * 4 // row.S).expand(row.B, row.S)
        self.segments = segment.contiguous() if row.segments else None
        self.table = torch.randperm(row.B * row.S // row.page, generator=generator, device=DEVICE, dtype=torch.int32) if row.page else None

    def in_pages(self, t, page: int):
        """The keys of t [B,S,G,D] in shuffled pages [P,page,G,D]: piece n of all pieces lies in page table[n]."""
        pages = torch.empty_like(t).view(-1, page, *t.shape[2:])
        pages[self.table.long()] = t.view_as(pages)
        return pages

    def heads_first(self):
        return tuple(t.transpose(1, 2).detach().requires_grad_() for t in (self.q, self.k, self.v))


class Dlattn:
    name = "dlattn"

    def __init__(self):
        import dlattn

        self.dlattn = dlattn
        self.version = dlattn.__version__

    def options(self, row, data) -> dict:
        options = {"causal": row.causal, "bias": data.bias, "alibi_slopes": data.slopes, "sinks": data.sinks, "softcap": row.softcap}
        if row.window_left >= 0:
            options["window"] = (row.window_left, -1)
        if row.blocks:
            options["block_window"] = row.blocks
        if data.segments is not None:
            options["segments"] = (data.segments, data.segments)
        if row.page:
            options["block_table"] = data.table.view(row.B, -1)
            options["seqlens_k"] = torch.full((row.B,), row.S, device=DEVICE, dtype=torch.int32)
        if row.dropout:
            options.update(dropout=row.dropout, seed=SEED)
        if row.lengths:
            begins = torch.tensor([*row.begins(), row.S], device=DEVICE, dtype=torch.int32)
            longest = max(row.lengths)
            options.update(cu_seqlens_q=begins, cu_seqlens_k=begins, max_seqlen_q=longest, max_seqlen_k=longest)
        return options

    def prepare(self, row, data):
        options, wanted = self.options(row, data), ("dq", "dk", "dv") + (("dbias",) if row.bias else ())
        q, k, v, dout = data.q, data.k, data.v, data.dout
        if row.page:
            k, v = (data.in_pages(t, row.page) for t in (k, v))
        if row.lengths:
            q, k, v, dout = (t[0] for t in (q, k, v, dout))
        lse_shape = (row.H, row.S) if row.lengths else (row.B, row.H, row.M or row.S)
        out, lse = torch.empty_like(dout), torch.empty(lse_shape, device=DEVICE)

        def forward():
            return self.dlattn.attention(q, k, v, out=out, lse=lse, **options).view(data.dout.shape)

        def backward():
            found = self.dlattn.attention_backward(dout, q, k, v, out, lse, grads=wanted, **options)
            return [getattr(found, name) for name in wanted]

        def unpacked():
            return [t[None] for t in backward()]

        try:
            forward()
            if "backward" in row.passes:
                backward()
        except (self.dlattn.UnsupportedError, self.dlattn.CompileError) as reason:
            raise Refused(str(reason)) from reason
        return forward, None if "backward" not in row.passes else unpacked if row.lengths else backward


class Portable(Dlattn):
    """dlattn's forward by the kernels that run on every GPU from sm_80 on; the backward has no others yet."""

    name = "sm80"

    @contextmanager
    def forced(self):
        self.dlattn.set_option("cuda_variant", self.name)
        try:
            yield
        finally:
            self.dlattn.set_option("cuda_variant", None)

    def prepare(self, row, data):
        with self.forced():
            forward, _ = super().prepare(row, data)

        def portable():
            with self.forced():
                return forward()

        return portable, None


def _calls(run, inputs, dout):
    """forward and backward of an autograd function, results as [B,S,H,D]."""
    out = run()

    def forward():
        with torch.no_grad():
            return run().transpose(1, 2)

    def backward():
        found = torch.autograd.grad(out, inputs, dout, retain_graph=True)
        return [t.transpose(1, 2) for t in found[:3]] + list(found[3:])

    return forward, backward


class Sdpa:
    """scaled_dot_product_attention with one backend."""

    def __init__(self, name: str, backend):
        self.name, self.backend, self.version = name, backend, torch.__version__

    def prepare(self, row, data):
        if row.window_left >= 0 or row.blocks or row.softcap or row.alibi or row.sinks or row.segments or row.lengths or row.dropout:
            raise Refused("SDPA has no such term")
        if row.bias and self.name != "efficient":
            raise Refused("no bias")
        q, k, v = data.heads_first()
        bias = data.bias.detach().requires_grad_() if row.bias else None

        def run():
            with sdpa_kernel(self.backend):
                whole = bias.expand(row.B, row.H, row.S, row.S) if row.bias else None
                return functional.scaled_dot_product_attention(q, k, v, attn_mask=whole, is_causal=row.causal, enable_gqa=bool(row.G))

        try:
            return _calls(run, (q, k, v, bias) if row.bias else (q, k, v), data.dout.transpose(1, 2))
        except RuntimeError as reason:
            raise Refused(str(reason).splitlines()[0]) from reason


class Flash3:
    """FlashAttention 3, where its package (flash_attn_interface) is installed."""

    name = "flash3"

    def __init__(self):
        try:
            import flash_attn_interface as package
        except ImportError:
            package = None
        self.package, self.version = package, getattr(package, "__version__", "3")

    def prepare(self, row, data):
        if row.blocks or row.bias or row.alibi or row.sinks or row.segments or row.dropout or row.page:
            raise Refused("FlashAttention 3 has no such term")
        inputs = data.heads_first()
        options = {"causal": row.causal, "softcap": row.softcap}
        if row.window_left >= 0:
            options["window_size"] = (row.window_left, 0 if row.causal else -1)

        def run():
            q, k, v = (t.transpose(1, 2) for t in inputs)
            if not row.lengths:
                found = self.package.flash_attn_func(q, k, v, **options)
            else:
                begins, longest = torch.tensor([*row.begins(), row.S], device=DEVICE, dtype=torch.int32), max(row.lengths)
                found = self.package.flash_attn_varlen_func(q[0], k[0], v[0], begins, begins, max_seqlen_q=longest, max_seqlen_k=longest,
                                                            **options)
            out = found[0] if isinstance(found, tuple) else found  # older ones give lse too
            return (out[None] if row.lengths else out).transpose(1, 2)

        try:
            forward, backward = _calls(run, inputs, data.dout.transpose(1, 2))
        except RuntimeError as reason:
            raise Refused(str(reason).splitlines()[0]) from reason
        if "backward" not in row.passes:
            return forward, None
        try:
            backward()
        except RuntimeError:  # it has no gradients of some problems
            return forward, None
        return forward, backward


class Flex:
    """FlexAttention, compiled for each row."""

    name = "flex"

    def __init__(self):
        self.version = torch.__version__

    @staticmethod
    def score(row, data, bias):
        slopes, softcap, shared = data.slopes, row.softcap, bool(row.bias) and row.bias[0] == "1"

        def modify(s, b, h, q, k):
            if softcap:
                s = softcap * torch.tanh(s / softcap)
            if slopes is not None:
                s = s - slopes[h] * (q - k).abs()
            if bias is not None:
                s = s + (bias[0, h, q, k] if shared else bias[b, h, q, k])
            return s

        return modify if softcap or slopes is not None or bias is not None else None

    @staticmethod
    def mask(row):
        from torch.nn.attention.flex_attention import create_block_mask

        if not (row.causal or row.blocks or row.segments):
            return None
        size, count = row.blocks or (1, 1)
        fourth = row.S // 4

        def keep(b, h, q, k):
            seen = q >= 0
            if row.causal:
                seen = seen & (q >= k)
            if row.window_left >= 0:
                seen = seen & (q - k <= row.window_left)
            if row.blocks:
                seen = seen & (k // size <= q // size) & (k // size > q // size - count)
            if row.segments:
                seen = seen & (q // fourth == k // fourth)
            return seen

        return create_block_mask(keep, None, None, row.S, row.S, device=DEVICE)

    def prepare(self, row, data):
        from torch.nn.attention.flex_attention import flex_attention

        torch._dynamo.reset()
        q, k, v = data.heads_first()
        bias = data.bias.detach().requires_grad_() if row.bias else None
        score, mask, compiled = self.score(row, data, bias), self.mask(row), torch.compile(flex_attention, dynamic=False)

        def run():
            return compiled(q, k, v, score_mod=score, block_mask=mask)

        try:
            _, backward = _calls(run, (q, k, v, bias) if row.bias else (q, k, v), data.dout.transpose(1, 2))
            backward()
        except Exception as reason:  # whatever the compiler meets
            raise Refused(f"{type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}") from reason
        return lambda: run().transpose(1, 2), backward  # without gradients it would be compiled once more


def known_providers() -> dict:
    return {"dlattn": Dlattn(), "sm80": Portable(), "flash": Sdpa("flash", SDPBackend.FLASH_ATTENTION),
            "cudnn": Sdpa("cudnn", SDPBackend.CUDNN_ATTENTION), "flash3": Flash3(), "efficient": Sdpa("efficient", SDPBackend.EFFICIENT_ATTENTION),
            "flex": Flex()}


# ---- what is right ---------------------------------------------------------------------------------------------------

def visible(row, rows: slice = slice(None)) -> torch.Tensor | None:
    """[S,S] of what is kept, or some of its rows; None for all."""
    i, j = torch.arange(row.S, device=DEVICE)[rows, None], torch.arange(row.S, device=DEVICE)[None, :]
    sequence = torch.repeat_interleave(torch.tensor(row.lengths, device=DEVICE)) if row.lengths else None
    keep = None
    for wanted, rule in ((row.causal, lambda: j <= i), (row.window_left >= 0, lambda: i - j <= row.window_left),
                         (row.blocks, lambda: (j // row.blocks[0] <= i // row.blocks[0]) & (j // row.blocks[0] > i // row.blocks[0] - row.blocks[1])),
                         (row.segments, lambda: i // (row.S // 4) == j // (row.S // 4)),
                         (row.lengths, lambda: sequence[i] == sequence[j])):
        if wanted:
            keep = rule() if keep is None else keep & rule()
    return keep


def weights(row, data, q, k, h: int, bias=None, rows: slice = slice(None)) -> torch.Tensor:
    """Those of head h of b = 0 by float32 math, before dropout."""
    s, keep = q @ k.T / math.sqrt(row.D), visible(row, rows)
    if row.softcap:
        s = row.softcap * torch.tanh(s / row.softcap)
    if row.alibi:
        i = torch.arange(row.S, device=DEVICE)
        s = s - data.slopes[h] * (i[rows, None] - i[None, :]).abs()
    if bias is not None:
        s = s + bias
    if keep is not None:
        s = s.masked_fill(~keep, -math.inf)
    if row.sinks:
        column = data.sinks[h].float().expand(len(s), 1)
        return torch.softmax(torch.cat([s, column], 1), 1)[:, :-1]
    return torch.softmax(s, 1)


def kept(row, data) -> torch.Tensor:
    """What dropout leaves of head 0 of b = 0, and by how much it multiplies that: the bytes below t of 256 go."""
    import dlattn

    q, k = data.q[:1, :, :1], data.k[:1, :, :1]
    threshold = min(255, max(1, round(256 * row.dropout)))
    return dlattn.dropout_mask(q, k, dropout=row.dropout, seed=SEED)[0, 0] * (256 / (256 - threshold))


def long_reference(row, data) -> dict:
    """out alone, in pieces: for rows so long that their scores do not fit into memory."""
    q, k, v = (t[0, :, 0].float() for t in (data.q, data.k, data.v))
    pieces = [slice(n, n + 4096) for n in range(0, row.S, 4096)]
    return {"out": torch.cat([weights(row, data, q[piece], k, 0, rows=piece) @ v for piece in pieces])}


def reference(row, data) -> dict:
    """out, dq, dk, dv of b = 0, h = 0 (dk, dv: of all heads that share its keys; dbias: of every b), by float32 math without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    if row.S > TOKENS:
        return long_reference(row, data)
    results, dbias, group = {}, None, row.H // (row.G or row.H)
    for b, h in [(b, 0) for b in range(row.B if row.bias[:1] == "1" else 1)] + [(0, h) for h in range(1, group if not row.M else 1)]:
        q, k, v = (t[b, :, n].float().requires_grad_() for t, n in ((data.q, h), (data.k, 0), (data.v, 0)))
        bias = data.bias[0 if row.bias[0] == "1" else b, 0].float().requires_grad_() if row.bias else None
        p = weights(row, data, q, k, h, bias)
        out = (p * kept(row, data) if row.dropout else p) @ v
        found = torch.autograd.grad(out, (q, k, v, bias) if row.bias else (q, k, v), data.dout[b, :, h].float())
        if b == 0 and h == 0:
            results = {"out": out.detach(), "dq": found[0], "dk": found[1], "dv": found[2]}
        elif b == 0:
            results["dk"], results["dv"] = results["dk"] + found[1], results["dv"] + found[2]
        if row.bias:
            dbias = found[3] if dbias is None else dbias + found[3]
            results["dbias"] = dbias
    return results


def errors(truth: dict, out, gradients) -> dict:
    """Largest difference of each result, as a fraction of the largest true value."""
    names = ["dq", "dk", "dv", "dbias"][:len(gradients)]
    found = {"out": out[0, :, 0], **{name: (g[0, 0] if name == "dbias" else g[0, :, 0]) for name, g in zip(names, gradients)}}
    return {name: float((found[name].detach().float() - truth[name]).abs().max() / truth[name].abs().max()) for name in found}
