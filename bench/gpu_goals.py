"""What the library wants to reach on a GPU, judged on the results of bench/compare.py: ratios within one run."""
from __future__ import annotations

import re
from collections import namedtuple

# what; which rows and pass; times what; the least that is wanted; by eager calls instead of device time
Goal = namedtuple("Goal", "text rows which other least eager", defaults=[False])

PLAIN = r"(full|causal)_d(64|128)_"
# What FlashAttention 3 reaches, times cuDNN in the same run (seen on an H200).
HOPPER = [(r"full_d128_s4096", 1.06), (r"causal_d128_s1024", 1.07), (r"full_d(128|256)_s16384", 1.09), (r"full_d64_s16384|causal_d256_s4096", 1.13),
          (r"causal_d128_s(4096|16384)", 1.14), (r"causal_d64_s16384", 1.15)]
GOALS = [
    Goal("forward, D 64 and 128, times FlashAttention", PLAIN, "forward", "flash", 1.0),
    Goal("forward, D 256, times FlashAttention", r"(full|causal)_d256_", "forward", "flash", 0.9),
    Goal("backward, D 64 and 128, times FlashAttention", PLAIN, "backward", "flash", 0.95),
    Goal("backward, D 256, times FlashAttention", r"(full|causal)_d256_", "backward", "flash", 0.85),
    *(Goal(f"forward, {rows.replace('|', ' or ')}, times cuDNN", f"({rows})$", "forward", "cudnn", least) for rows, least in HOPPER),
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
    """Times a peer, or times another row by the same kernels: a term that Hopper's forward lacks is judged by the portable one."""
    if "{D}" not in goal.other:
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
            print(f"{'yes' if met == len(ratios) else 'NO '} {goal.text:52s} wanted {goal.least:.2f}, worst {ratios[0][0]:.2f} ({ratios[0][1]}), "
                  f"{met} of {len(ratios)}")
