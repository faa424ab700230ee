"""The problems that bench/compare.py times on a GPU: bfloat16, 16384 tokens in all, a hidden size of 2048."""
from __future__ import annotations

from dataclasses import dataclass, field

TOKENS, HIDDEN = 16384, 2048


@dataclass(frozen=True)
class Row:
    """One problem. bias: "" or the letters of its dimensions (bhmn, 1 broadcasts), with its gradient in the backward."""

    name: str
    B: int
    H: int
    S: int
    D: int
    causal: bool = False
    window_left: int = -1
    blocks: tuple[int, int] | None = None  # size, count
    bias: str = ""
    softcap: float = 0.0
    alibi: bool = False
    sinks: bool = False
    segments: bool = False  # four of equal length per sequence
    peers: tuple[str, ...] = ("flash", "cudnn")
    quick: bool = False
    G: int = 0              # heads of k and v; 0: H
    M: int = 0              # queries that each see all S keys, and no backward: decoding; 0: S
    page: int = 0           # keys lie in pages of so many, shuffled; 0: in one piece
    small: bool = False     # so short that it is timed as a captured graph, and as eager calls
    tags: tuple[str, ...] = field(default_factory=tuple)

    def limits(self, i: int) -> tuple[int, int]:
        """First and last key that query i sees."""
        first, last = 0, self.S - 1
        if self.causal:
            last = i
        if self.window_left >= 0:
            first = max(0, i - self.window_left)
        if self.blocks:
            size, count = self.blocks
            first, last = max(first, (i // size - count + 1) * size), min(last, (i // size + 1) * size - 1)
        if self.segments:
            size = self.S // 4
            first, last = max(first, i // size * size), min(last, (i // size + 1) * size - 1)
        return first, last

    def pairs(self) -> int:
        """Visible (b, h, i, j)."""
        return self.B * self.H * (self.M * self.S or sum(last - first + 1 for first, last in map(self.limits, range(self.S))))

    def flop(self, backward: bool) -> float:
        """4D for each visible pair, 2.5 times that in the backward."""
        return self.pairs() * 4 * self.D * (2.5 if backward else 1)

    def problem(self) -> dict:
        """What is not default, for the JSON file."""
        names = ("causal", "window_left", "blocks", "bias", "softcap", "alibi", "sinks", "segments", "page")
        terms = {name: getattr(self, name) for name in names}
        default = Row("", 0, 0, 0, 0)
        return {"B": self.B, "H": self.H, "G": self.G or self.H, "M": self.M or self.S, "N": self.S, "D": self.D, "E": self.D,
                **{name: value for name, value in terms.items() if value != getattr(default, name)}}


def row(name: str, S: int, D: int, **terms) -> Row:
    return Row(name, TOKENS // S, HIDDEN // D, S, D, **terms)


def _lengths() -> list[Row]:
    rows = []
    for D in (64, 128, 256):
        for S in (1024, 4096, 16384):
            for causal in (False, True):
                peers = ("sm80", "flash", "cudnn", "efficient") if S == 4096 and D < 256 else ("sm80", "flash", "cudnn")
                rows.append(row(f"{'causal' if causal else 'full'}_d{D}_s{S}", S, D, causal=causal, peers=peers, tags=("lengths",),
                                quick=S == 4096 or (S == 16384 and not causal and D < 256)))
    return rows


def _terms() -> list[Row]:
    rows, portable = [], ("sm80",)
    for D in (64, 128):
        flex = ("flex",) if D == 128 else ()  # it compiles each row anew, for five seconds and more
        rows += [
            row(f"window1024_d{D}_s16384", 16384, D, causal=True, window_left=1023, peers=portable + flex, tags=("window",), quick=True),
            row(f"blocks256x16_d{D}_s16384", 16384, D, blocks=(256, 16), peers=portable + flex, tags=("window",), quick=True),
            row(f"bias_bhmn_d{D}_s4096", 4096, D, bias="bhmn", peers=("flex", "efficient"), tags=("bias",), quick=True),
            row(f"bias_1hmn_d{D}_s4096", 4096, D, bias="1hmn", peers=flex + ("efficient",), tags=("bias",)),
            row(f"alibi_d{D}_s4096", 4096, D, alibi=True, peers=flex, tags=("terms",), quick=True),
            row(f"softcap_d{D}_s4096", 4096, D, softcap=30.0, peers=portable + flex, tags=("terms",), quick=True),
            row(f"sinks_d{D}_s4096", 4096, D, sinks=True, peers=portable, tags=("terms",), quick=True),
            row(f"segments_d{D}_s4096", 4096, D, segments=True, peers=flex, tags=("terms",), quick=True),
        ]
    return rows


def _small() -> list[Row]:
    return [Row(f"small_{'causal' if causal else 'full'}_d{D}_s512", 1, 8, 512, D, causal=causal, small=True, tags=("small",), quick=not causal)
            for D in (64, 128) for causal in (False, True)]


def _decode() -> list[Row]:
    names = {0: "decode", **{page: f"decode_page{page}" for page in (16, 64, 256)}}
    return [Row(f"{name}_d128_s16384", 8, 32, 16384, 128, G=8, M=1, page=page, peers=(), tags=("decode",), quick=True)
            for page, name in names.items()]


def all_rows() -> list[Row]:
    return _lengths() + _terms() + _small() + _decode()
