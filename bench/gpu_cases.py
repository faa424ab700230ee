"""The problems that bench/compare.py times on a GPU: mostly bfloat16, 16384 tokens in all, a hidden size of 2048."""
from __future__ import annotations

from dataclasses import dataclass, field

TOKENS, HIDDEN = 16384, 2048
# Sixteen sequences with as many tokens in all, and as many pairs, as eight of 2048.
MIXED = (450, 1000, 200, 2048, 1300, 384, 128, 768, 450, 200, 300, 96, 1000, 3500, 3198, 1362)


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
    dropout: float = 0.0
    lengths: tuple[int, ...] = ()  # B is 1, and its S tokens are these sequences, packed
    E: int = 0              # head size of v; 0: D
    dtype: str = "bf16"
    forward_only: bool = False
    peers: tuple[str, ...] = ("flash", "cudnn", "flash3")
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
        for begin, length in zip(self.begins(), self.lengths):
            if begin <= i < begin + length:
                first, last = max(first, begin), min(last, begin + length - 1)
        return first, last

    def begins(self) -> list[int]:
        """First token of each packed sequence."""
        return [sum(self.lengths[:n]) for n in range(len(self.lengths))]

    @property
    def passes(self) -> tuple[str, ...]:
        return ("forward",) if self.M or self.forward_only else ("forward", "backward")

    def pairs(self) -> int:
        """Visible (b, h, i, j)."""
        return self.B * self.H * (self.M * self.S or sum(last - first + 1 for first, last in map(self.limits, range(self.S))))

    def flop(self, backward: bool) -> float:
        """2(D+E) for each visible pair, 2.5 times that in the backward."""
        return self.pairs() * 2 * (self.D + (self.E or self.D)) * (2.5 if backward else 1)

    def problem(self) -> dict:
        """What is not default, for the JSON file."""
        names = ("causal", "window_left", "blocks", "bias", "softcap", "alibi", "sinks", "segments", "page", "dropout", "lengths")
        terms = {name: getattr(self, name) for name in names}
        default = Row("", 0, 0, 0, 0)
        return {"B": self.B, "H": self.H, "G": self.G or self.H, "M": self.M or self.S, "N": self.S, "D": self.D, "E": self.E or self.D,
                **{name: value for name, value in terms.items() if value != getattr(default, name)}}


def row(name: str, S: int, D: int, **terms) -> Row:
    return Row(name, TOKENS // S, HIDDEN // D, S, D, **terms)


def _lengths() -> list[Row]:
    rows = []
    for D in (64, 128, 256):
        for S in (1024, 4096, 16384):
            for causal in (False, True):
                peers = ("sm80", "flash", "cudnn", "flash3") + (("efficient",) if S == 4096 and D < 256 else ())
                rows.append(row(f"{'causal' if causal else 'full'}_d{D}_s{S}", S, D, causal=causal, peers=peers, tags=("lengths",),
                                quick=S == 4096 or (S == 16384 and not causal and D < 256)))
    return rows


def _terms() -> list[Row]:
    rows, portable = [], ("sm80",)
    for D in (64, 128):
        flex = ("flex",) if D == 128 else ()  # it compiles each row anew, for five seconds and more
        rows += [
            row(f"window1024_d{D}_s16384", 16384, D, causal=True, window_left=1023, peers=portable + ("flash3",) + flex, tags=("window",), quick=True),
            row(f"blocks256x16_d{D}_s16384", 16384, D, blocks=(256, 16), peers=portable + ("flex",), tags=("window",), quick=True),
            row(f"bias_bhmn_d{D}_s4096", 4096, D, bias="bhmn", peers=("flex", "efficient"), tags=("bias",), quick=True),
            row(f"bias_1hmn_d{D}_s4096", 4096, D, bias="1hmn", peers=flex + ("efficient",), tags=("bias",)),
            row(f"alibi_d{D}_s4096", 4096, D, alibi=True, peers=flex, tags=("terms",), quick=True),
            row(f"softcap_d{D}_s4096", 4096, D, softcap=30.0, peers=portable + ("flash3",) + flex, tags=("terms",), quick=True),
            row(f"sinks_d{D}_s4096", 4096, D, sinks=True, peers=portable, tags=("terms",), quick=True),
            row(f"segments_d{D}_s4096", 4096, D, segments=True, peers=flex, tags=("terms",), quick=True),
            row(f"dropout_d{D}_s4096", 4096, D, dropout=0.1, peers=(), tags=("terms",), quick=True),
        ]
    return rows


def _shapes() -> list[Row]:
    """What the other groups hold constant: grouped heads, a longer sequence, packed lengths, other head sizes, float16."""
    rows = [Row("gqa_causal_d128_s8192", 2, 32, 8192, 128, causal=True, G=8, tags=("shapes",), quick=True),
            Row("window4096_d128_s65536", 1, 16, 65536, 128, causal=True, window_left=4095, peers=("flash3",), forward_only=True, tags=("shapes",), quick=True)]
    for causal in (False, True):
        kind, terms = ("causal", {"causal": True}) if causal else ("full", {})
        rows += [Row(f"packed_{kind}_d128", 1, 16, TOKENS, 128, lengths=MIXED, peers=("flash3",), tags=("shapes",), quick=not causal, **terms),
                 Row(f"{kind}_d128_s2048", 8, 16, 2048, 128, peers=(), tags=("shapes",), quick=not causal, **terms)]
        for D in (80, 96, 112, 160, 192):
            rows.append(Row(f"{kind}_d{D}_s4096", 4, 16 if D < 128 else 8, 4096, D, tags=("shapes",), quick=not causal, **terms))
        rows.append(Row(f"{kind}_d192_e128_s4096", 4, 8, 4096, 192, E=128, peers=("cudnn", "flash3"), forward_only=True, tags=("shapes",), quick=not causal, **terms))
    for D in (64, 128):
        rows += [row(f"f16_full_d{D}_s4096", 4096, D, dtype="f16", peers=("cudnn", "flash3"), tags=("shapes",), quick=True),
                 row(f"f16_causal_d{D}_s16384", 16384, D, causal=True, dtype="f16", peers=("cudnn", "flash3"), tags=("shapes",))]
    return rows


def _small() -> list[Row]:
    return [Row(f"small_{'causal' if causal else 'full'}_d{D}_s512", 1, 8, 512, D, causal=causal, small=True, peers=("flash", "cudnn"), tags=("small",), quick=not causal)
            for D in (64, 128) for causal in (False, True)]


def _decode() -> list[Row]:
    names = {0: "decode", **{page: f"decode_page{page}" for page in (16, 64, 256)}}
    return [Row(f"{name}_d128_s16384", 8, 32, 16384, 128, G=8, M=1, page=page, peers=(), tags=("decode",), quick=True)
            for page, name in names.items()]


def all_rows() -> list[Row]:
    return _lengths() + _terms() + _shapes() + _small() + _decode()
