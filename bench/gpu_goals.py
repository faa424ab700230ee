"""What the library wants to reach on a GPU, judged on the results of bench/compare.py: ratios within one run."""
from __future__ import annotations

import re
from collections import namedtuple

# what; which rows and pass; times what: a peer, a row by the same kernels, or "provider:row"; the least that is wanted; by eager calls
# instead of device time
Goal = namedtuple("Goal", "text rows which other least eager", defaults=[False])

PLAIN = r"(full|causal)_d(64|128)_"
# What FlashAttention 3 reaches, times cuDNN in the same run (seen on an H200).
HOPPER = [(r"full_d128_s4096", 1.06), (r"causal_d128_s1024", 1.07), (r"full_d(128|256)_s16384", 1.09), (r"full_d64_s16384|causal_d256_s4096", 1.13),
          (r"causal_d128_s(4096|16384)", 1.14), (r"causal_d64_s16384", 1.15), (r"gqa_causal_d128_s8192", 1.13)]
WINDOWS = [("window1024_d128_s16384", 0.88), ("window1024_d64_s16384", 0.76), ("window4096_d128_s65536", 1.04)]
# A head size and the next larger power of two: at least its rate times the share of it that is used.
SIZES = [(f"d{D}", larger, D / larger) for D, larger in ((80, 128), (96, 128), (112, 128), (160, 256), (192, 256))] + [("d192_e128", 256, 320 / 512)]
GOALS = [
    Goal("forward, D 64 and 128, times FlashAttention", PLAIN, "forward", "flash", 1.0),
    Goal("forward, D 256, times FlashAttention", r"(full|causal)_d256_", "forward", "flash", 0.9),
    Goal("backward, D 64 and 128, times FlashAttention", PLAIN, "backward", "flash", 0.95),
    Goal("backward, D 256, times FlashAttention", r"(full|causal)_d256_", "backward", "flash", 0.85),
    *(Goal(f"forward, {rows.replace('|', ' or ')}, times cuDNN", f"({rows})$", "forward", "cudnn", least) for rows, least in HOPPER),
    *(Goal(f"forward, {rows.replace('|', ' or ')}, times FlashAttention 3", f"({rows})$", "forward", "flash3", 1.05)
      for rows in (*(rows for rows, _ in HOPPER), *(rows for rows, _ in WINDOWS))),
    *(Goal(f"forward, {row}, times cuDNN's causal 16k", f"{row}$", "forward", "cudnn:causal_d{D}_s16384", least) for row, least in WINDOWS),
    Goal("forward, block window 256 x 16, D 64, times FlexAttention", r"blocks256x16_d64_", "forward", "flex", 1.3),
    Goal("forward, dense bias, D 128, times FlexAttention", r"bias_\w+_d128_", "forward", "flex", 1.3),
    Goal("forward, float16 times bfloat16, 4k", r"f16_full_", "forward", "dlattn:full_d{D}_s4096", 0.98),
    Goal("forward, float16 times bfloat16, causal 16k", r"f16_causal_", "forward", "dlattn:causal_d{D}_s16384", 0.98),
    *(Goal(f"forward, {term}, times the plain row", f"{term}_d", "forward", "dlattn:full_d{D}_s4096", 0.85)
      for term in ("softcap", "alibi", "sinks", "segments")),
    Goal("forward, dropout, times the plain row", r"dropout_d", "forward", "dlattn:full_d{D}_s4096", 0.7),
    *(Goal(f"forward, packed lengths, {kind}, times as many pairs unpacked", f"packed_{kind}_", "forward", f"dlattn:{kind}_d{{D}}_s2048", 0.93)
      for kind in ("full", "causal")),
    *(Goal(f"forward, {size} times d{larger}, {kind}", f"{kind}_{size}_s4096", "forward", f"dlattn:{kind}_d{larger}_s4096", share)
      for kind in ("full", "causal") for size, larger, share in SIZES),
    Goal("window 1024 at 16k, times the plain rate", r"window1024_", None, "full_d{D}_s16384", 0.9),
    Goal("block window 256 x 16 at 16k, times the plain rate", r"blocks256x16_", None, "full_d{D}_s16384", 0.9),
    Goal("dense bias forward, times FlexAttention", r"bias_", "forward", "flex", 0.75),
    Goal("dense bias forward, times memory-efficient", r"bias_", "forward", "efficient", 1.5),
    Goal("backward with dbias, times FlexAttention", r"bias_", "backward", "flex", 1.0),
    Goal("backward with dbias, times memory-efficient", r"bias_", "backward", "efficient", 1.5),
    Goal("ALiBi, times the plain rate", r"alibi_", None, "full_d{D}_s4096", 0.8),
    Goal("softcap, times the plain rate", r"softcap_", None, "full_d{D}_s4096", 0.8),
    Goal("sinks, times the plain rate", r"sinks_", None, "full_d{D}_s4096", 0.8),
    Goal("segments, times the plain rate", r"segments_", None, "full_d{D}_s4096", 0.8),
    Goal("decoding from pages of 256, times from one piece", r"decode_page256_", "forward", "decode_d{D}_s16384", 0.9),
    Goal("small (B 1, H 8, S 512), eager, times FlashAttention", r"small_", None, "flash", 1.0, True),
    Goal("small, captured in a graph, times FlashAttention", r"small_", None, "flash", 1.0),
]


def rates(document: dict, eager: bool = False) -> dict:
    """GFLOP/s by (case, pass, provider); eager: calls per millisecond of those that were timed so."""
    if eager:
        return {(r["case"], r["pass"], r["provider"]): 1 / r["eager_ms"] for r in document["results"] if "eager_ms" in r}
    return {(r["case"], r["pass"], r["provider"]): r["gflops"] for r in document["results"]}


def ratio(goal: Goal, found: dict, case: str, which: str, D: int):
    """Times a peer, a row of a provider, or another row by the same kernels: a term that Hopper's forward lacks is judged by the portable one."""
    if ":" in goal.other:
        provider, row = goal.other.format(D=D).split(":")
        own, other = found.get((case, which, "dlattn")), found.get((row, which, provider))
    elif "{D}" not in goal.other:
        own, other = found.get((case, which, "dlattn")), found.get((case, which, goal.other))
    else:
        own, other = (found.get((row, which, "sm80")) or found.get((row, which, "dlattn")) for row in (case, goal.other.format(D=D)))
    return own / other if own and other else None


def judge(document: dict) -> list[tuple[Goal, list[tuple[float, str]]]]:
    """Each goal with its ratios, the worst first; those that the document cannot judge have none."""
    judged = []
    keys = {(r["case"], r["pass"], r["problem"]["D"]) for r in document["results"] if r["provider"] == "dlattn"}
    for goal in GOALS:
        found = rates(document, goal.eager)
        ratios = [(value, f"{case} {which}") for case, which, D in sorted(keys) if re.match(goal.rows, case) and goal.which in (None, which)
                  and (value := ratio(goal, found, case, which, D)) is not None]
        judged.append((goal, sorted(ratios)))
    return judged


def print_goals(document: dict) -> None:
    for goal, ratios in judge(document):
        if ratios:
            met = sum(value >= goal.least for value, _ in ratios)
            print(f"{'yes' if met == len(ratios) else 'NO '} {goal.text:66s} wanted {goal.least:.2f}, worst {ratios[0][0]:.2f} ({ratios[0][1]}), "
                  f"{met} of {len(ratios)}")


def print_shares(document: dict) -> None:
    """Each forward beside cuDNN's and beside the product of matrices in the same run."""
    found, gemm = rates(document), document["peaks"]["gemm_gflops_before"]
    for case, which, provider in found:
        if which == "forward" and provider == "dlattn" and (peer := found.get((case, which, "cudnn"))):
            own = found[case, which, provider]
            print(f"    {case:26s} {own * 1e-3:5.0f} TFLOP/s, {own / peer:.2f} of cuDNN, {own / gemm:.2f} of the product of 8192^3")
