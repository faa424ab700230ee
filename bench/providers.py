"""One class per library that bench/peers.py times, all on the same memory in the layout [B,H,M,D].

A provider makes a case ready and gives two functions without arguments, forward and backward. The backward is the
gradients alone, from a forward that was run before. Each allocates its own results, as its users do.
"""
from __future__ import annotations

import re

import numpy
import torch

import dlattn

TORCH_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Data:
    """The tensors of a case, in torch's memory: it has every dtype, and the others borrow it by DLPack."""

    def __init__(self, case):
        generator, dtype = torch.Generator().manual_seed(1), TORCH_DTYPES[case.dtype]

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float32).to(dtype)

        self.q, self.dout = normal(case.B, case.H, case.M, case.D), normal(case.B, case.H, case.M, case.D)
        self.k, self.v = normal(case.B, case.G, case.N, case.D), normal(case.B, case.G, case.N, case.D)
        extents = dict(b=case.B, h=case.H, m=case.M, n=case.N)
        self.bias = normal(*(extents.get(letter, 1) for letter in case.bias)) if case.bias else None
        self.slopes = torch.arange(1, case.H + 1) / 16 if case.alibi else None
        self.sinks = normal(case.H) if case.sinks else None
        self.segments = (torch.arange(case.M) * 4 // case.M).to(torch.int32).expand(case.B, -1) if case.segments else None
        self.visible = _visible(case) if case.window_left >= 0 else None


def _visible(case):
    """The mask tensor that a library without windows needs."""
    position = torch.arange(case.M)[:, None] + case.N - case.M
    key = torch.arange(case.N)[None, :]
    mask = key >= position - case.window_left
    return mask & (key <= position) if case.causal else mask


class Dlattn:
    name, version = "dlattn", dlattn.version()

    def __init__(self, threads: int, isa: str | None = None):
        self.threads, self.isa = threads, isa
        if isa:
            with self:
                self.names = self._names()
        else:
            self.names = self._names()

    def __enter__(self):
        if self.isa:
            dlattn.set_option("cpu_isa", self.isa)

    def __exit__(self, *_):
        if self.isa:
            dlattn.set_option("cpu_isa", None)

    @staticmethod
    def _names() -> tuple[str, str]:
        """The instruction sets in use, in general and for bfloat16."""
        found = re.search(r"in use: (\w+)(?: \(bfloat16: (\w+)\))?", dlattn.explain())
        return (found.group(1), found.group(2) or found.group(1)) if found else ("", "")

    def isa_of(self, case) -> str:
        return self.names[case.dtype == "bf16"]

    def prepare(self, case, data):
        options = dict(layout="bhsd", causal=case.causal, bias=data.bias, softcap=case.softcap, dropout=case.dropout,
                       alibi_slopes=data.slopes, sinks=data.sinks, segments=data.segments, num_threads=self.threads)
        if case.window_left >= 0:
            options["window"] = (case.window_left, None)
        grads = ("dq", "dk", "dv") + (("dbias",) if case.bias else ()) + (("dsinks",) if case.sinks else ())
        out, lse = dlattn.attention(data.q, data.k, data.v, return_lse=True, **options)

        def forward():
            return dlattn.attention(data.q, data.k, data.v, **options)

        def backward():
            return dlattn.attention_backward(data.dout, data.q, data.k, data.v, out, lse, grads=grads, **options)

        return forward, backward


class Torch:
    name, version = "torch", torch.__version__

    def __init__(self, threads: int):
        self.threads = threads
        torch.set_num_threads(threads)

    def isa_of(self, case) -> str:
        return torch.backends.cpu.get_cpu_capability().lower()

    def prepare(self, case, data):
        inputs = [tensor.detach().requires_grad_(case.backward) for tensor in (data.q, data.k, data.v)]
        options = dict(is_causal=case.causal and data.visible is None, enable_gqa=case.H != case.G)
        if case.bias:
            options["attn_mask"] = data.bias.detach().requires_grad_(case.backward)
        elif data.visible is not None:
            options["attn_mask"] = data.visible
        wanted = inputs + ([options["attn_mask"]] if case.bias else [])
        function = torch.nn.functional.scaled_dot_product_attention
        saved = function(*inputs, **options) if case.backward else None

        def forward():
            with torch.no_grad():
                return function(*inputs, **options)

        def backward():
            return torch.autograd.grad(saved, wanted, data.dout, retain_graph=True)

        return forward, backward


class Jax:
    name = "jax"

    def __init__(self, threads: int):
        import jax

        self.jax, self.version, self.threads = jax, jax.__version__, threads

    def isa_of(self, case) -> str:
        return "xla"

    def prepare(self, case, data):
        jax = self.jax
        q, k, v, dout = (self._array(tensor, True) for tensor in (data.q, data.k, data.v, data.dout))
        bias = self._array(data.bias, False) if case.bias else None
        inputs = (q, k, v) + (() if bias is None else (bias,))

        def attend(q, k, v, bias=None):
            return jax.nn.dot_product_attention(q, k, v, bias=bias, is_causal=case.causal)

        compiled = jax.jit(attend)
        pull = jax.jit(lambda back, dout: back(dout))
        _, back = jax.jit(lambda *arrays: jax.vjp(attend, *arrays))(*inputs)

        def forward():
            return jax.block_until_ready(compiled(*inputs))

        def backward():
            return jax.block_until_ready(pull(back, dout))

        return forward, backward

    def _array(self, tensor, swap: bool):
        """jax's attention wants [B,M,H,D], compact."""
        if swap:
            tensor = tensor.transpose(1, 2)
        return self.jax.numpy.from_dlpack(tensor.contiguous())


def as_numpy(result, provider: str):
    """An attention result as float32 [B,H,M,D], to compare providers."""
    if provider == "jax":
        return numpy.asarray(result, dtype="float32").transpose(0, 2, 1, 3)
    return result.float().numpy()
