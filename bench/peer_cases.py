"""The problems that bench/peers.py times, and how much arithmetic each of them is."""
from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Case:
    """One problem. bias: "" or the letters of its dimensions (bhmn, 1 broadcasts), with its gradient in the backward."""

    name: str
    dtype: str = "f32"
    B: int = 1
    H: int = 8
    G: int = 8
    M: int = 1024
    N: int = 1024
    D: int = 64
    causal: bool = False
    window_left: int = -1
    bias: str = ""
    softcap: float = 0.0
    dropout: float = 0.0
    alibi: bool = False
    sinks: bool = False
    segments: bool = False
    backward: bool = True
    peers: tuple[str, ...] = ("torch",)
    avx2: bool = False          # time the AVX2 code too
    one_thread: bool = False    # time the library on one thread too
    tags: tuple[str, ...] = field(default_factory=tuple)

    def pairs(self) -> int:
        """Visible (b, h, i, j)."""
        off, count = self.N - self.M, 0
        for i in range(self.M):
            last = min(self.N - 1, i + off) if self.causal else self.N - 1
            first = max(0, i + off - self.window_left) if self.window_left >= 0 else 0
            if self.segments:  # four of equal length, as providers.py makes them
                segment = i * 4 // self.M
                first, last = max(first, -(-segment * self.N // 4)), min(last, -(-(segment + 1) * self.N // 4) - 1)
            count += max(0, last - first + 1)
        return count * self.B * self.H

    def flop(self, backward: bool) -> float:
        """2(D+E) for each visible pair, 2.5 times that in the backward."""
        return self.pairs() * 4 * self.D * (2.5 if backward else 1)

    def kv_bytes(self) -> int:
        return 2 * self.B * self.N * self.G * self.D * (4 if self.dtype == "f32" else 2)

    def decode(self) -> bool:
        return self.M * self.H // self.G <= 16

    def problem(self) -> dict:
        """What is not default, for the JSON file."""
        default = Case(self.name)
        shape = {name: getattr(self, name) for name in ("B", "H", "G", "M", "N", "D")}
        terms = {name: getattr(self, name) for name in ("causal", "window_left", "bias", "softcap", "dropout", "alibi", "sinks",
                                                        "segments") if getattr(self, name) != getattr(default, name)}
        return {**shape, "E": self.D, **terms}


def _sizes() -> list[Case]:
    """Full and causal attention by dtype, head size and length; as many heads as keep a call short."""
    cases = []
    for dtype in ("f32", "bf16", "f16"):
        for size in (64, 128, 256):
            for length, heads in ((1024, 8), (4096, 2)):
                if size == 256:
                    heads //= 2
                for causal in (False, True):
                    peers = ("torch", "jax") if size < 256 and dtype != "f16" and length == 1024 else ("torch",)
                    cases.append(Case(f"{'causal' if causal else 'full'}_{dtype}_d{size}_s{length}", dtype, 1, heads, heads, length,
                                      length, size, causal, peers=peers, avx2=dtype == "f32" and size < 256,
                                      one_thread=not causal and length == 4096 and size < 256, tags=("sizes",)))
    return cases


def _lengths() -> list[Case]:
    """Speed by length: the same amount of arithmetic at 256 to 16384."""
    return [Case(f"length_{dtype}_{length}", dtype, 1, heads, heads, length, length, 64, True,
                 peers=("torch", "jax") if length <= 4096 else ("torch",), tags=("lengths",))
            for dtype in ("f32", "bf16")
            for length, heads in ((256, 16), (512, 16), (1024, 8), (2048, 4), (4096, 2), (8192, 1), (16384, 1))]


def _terms() -> list[Case]:
    plain = Case("terms_plain", peers=(), tags=("terms",))
    window = Case("window_256_s8192", H=2, G=2, M=8192, N=8192, causal=True, window_left=255, tags=("window",))
    return [
        Case("bias_dbias_f32_d64", bias="bhmn", peers=("torch", "jax"), tags=("bias",)),
        Case("bias_dbias_shared_f32_d64", B=4, H=4, G=4, M=512, N=512, bias="1hmn", tags=("bias",)),
        Case("bias_dbias_bf16_d64", "bf16", bias="bhmn", tags=("bias",)),
        Case("gqa_f32_d128", H=8, G=2, D=128, peers=("torch", "jax"), tags=("gqa",)),
        Case("gqa_bf16_d128", "bf16", H=8, G=2, D=128, peers=("torch", "jax"), tags=("gqa",)),
        window, replace(window, name="window_256_s8192_bf16", dtype="bf16"),
        Case("short_f32_s256", M=256, N=256, peers=("torch", "jax"), tags=("short",)),
        Case("short_bf16_s256", "bf16", M=256, N=256, peers=("torch", "jax"), tags=("short",)),
        plain, replace(plain, name="terms_gqa", G=2), replace(plain, name="terms_softcap", softcap=30.0),
        replace(plain, name="terms_alibi", alibi=True), replace(plain, name="terms_sinks", sinks=True),
        replace(plain, name="terms_dropout", dropout=0.1), replace(plain, name="terms_segments", segments=True),
    ]


def _decode() -> list[Case]:
    """One kv head's 1, 4 or 8 rows on 16384 keys, from caches larger than the processor's."""
    return [Case(f"decode_{rows}_rows_{dtype}", dtype, 8, heads, 2, queries, 16384, 128, False, backward=False,
                 tags=("decode",))
            for dtype in ("f32", "bf16") for rows, heads, queries in ((1, 2, 1), (4, 8, 1), (8, 8, 2))]


def all_cases() -> list[Case]:
    return _sizes() + _lengths() + _terms() + _decode()
