"""What the library wants to reach, judged on the results of bench/peers.py.

Ratios are to PyTorch in the same run; fractions are of the multiply-add peak, or of the pure read rate, of the same run.
"""
from __future__ import annotations

import re
from collections import namedtuple

# name; which cases and pass; how results become one number; the least that is wanted
Goal = namedtuple("Goal", "text cases passes measure least")

SIZES = r"_d(64|128)_s(1024|4096)"
GOALS = [
    Goal("fp32 forward, times PyTorch", "full_f32" + SIZES, "forward", "torch", 2.2),
    Goal("fp32 backward, times PyTorch", "full_f32" + SIZES, "backward", "torch", 2.2),
    Goal("bf16 forward, times PyTorch", "full_bf16" + SIZES, "forward", "torch", 4.0),
    Goal("bf16 backward, times PyTorch", "full_bf16" + SIZES, "backward", "torch", 2.6),
    Goal("fp32 causal, 1024 tokens, forward, times PyTorch", r"causal_f32_d(64|128)_s1024", "forward", "torch", 3.1),
    Goal("fp32 causal, 1024 tokens, backward, times PyTorch", r"causal_f32_d(64|128)_s1024", "backward", "torch", 3.1),
    Goal("bias forward, times PyTorch", "bias_dbias_f32_d64", "forward", "torch", 5.5),
    Goal("bias and dbias backward, times PyTorch", "bias_dbias_f32_d64", "backward", "torch", 2.7),
    Goal("AVX2 code, fp32, times PyTorch", "(full|causal)_f32" + SIZES, None, "avx2", 1.15),
    Goal("fp32 forward, of the peak", "full_f32" + SIZES, "forward", "peak", 0.80),
    Goal("fp32 backward, of the peak", "full_f32" + SIZES, "backward", "peak", 0.82),
    Goal("bf16 forward, of the peak", "full_bf16" + SIZES, "forward", "peak", 0.72),
    Goal("bf16 backward, of the peak", "full_bf16" + SIZES, "backward", "peak", 0.78),
    Goal("head size 256, fp32, of the peak", r"full_f32_d256", None, "peak", 0.75),
    Goal("fp16, times the fp32 rate", "full_f16" + SIZES, None, "f32", 0.95),
    Goal("window 256 at 8192 tokens: full rate for its pairs", "window_256_s8192", None, "full", 1 / 1.15),
    Goal("decode, 1 row, of the read rate", "decode_1_rows", "forward", "read", 0.9),
    Goal("decode, 4 rows, of the read rate", "decode_4_rows", "forward", "read", 0.7),
    Goal("decode, 8 rows, of the read rate", "decode_8_rows", "forward", "read", 0.6),
    Goal("GQA, softcap, ALiBi, sinks, segments, times the plain rate", r"terms_(gqa|softcap|alibi|sinks|segments)", None, "plain", 0.85),
    Goal("dropout, times the plain rate", "terms_dropout", None, "plain", 0.7),
    Goal("two threads, times one", r"full_(f32|bf16)_d(64|128)_s4096", None, "threads", 1.8),
    Goal("256 tokens, times the rate at 4096", r"short_", None, "long", 0.7),
]


class Results:
    """The results of one file, by case, pass and provider."""

    def __init__(self, document: dict):
        self.document, self.by_key, self.order = document, {}, []
        most = document["machine"]["threads"]
        isas = [r["isa"] for r in document["results"] if r["provider"] == "dlattn"]
        for r in document["results"]:
            provider = r["provider"]
            if provider == "dlattn" and r["isa"] == "avx2" and set(isas) != {"avx2"}:
                provider = "dlattn-avx2"
            elif provider == "dlattn" and r["threads"] < most:
                provider = "dlattn-1"
            key = (r["case"], r["pass"])
            if key not in self.by_key:
                self.order.append(key)
            self.by_key.setdefault(key, {})[provider] = r

    def rate(self, case: str, which: str, provider: str = "dlattn"):
        result = self.by_key.get((case, which), {}).get(provider)
        return result["gflops"] if result else None

    def measure(self, name: str, case: str, which: str):
        """One of the goals' numbers, or None where the file has not got what it needs."""
        rates = self.by_key[(case, which)]
        own = rates.get("dlattn")
        if own is None:
            return None
        if name == "peak":
            return own["gflops"] / own["peak_gflops"]
        if name == "read":
            return own["read_gbs"] / own["peak_read_gbs"] if "read_gbs" in own else None
        other = {"torch": lambda: rates.get("torch", {}).get("gflops"),
                 "jax": lambda: rates.get("jax", {}).get("gflops"),
                 "avx2": lambda: rates.get("torch", {}).get("gflops"),
                 "threads": lambda: rates.get("dlattn-1", {}).get("gflops"),
                 "f32": lambda: self.rate(case.replace("_f16", "_f32"), which),
                 "full": lambda: self.rate(f"full_{own['dtype']}_d64_s4096", which),
                 "long": lambda: self.rate(f"full_{own['dtype']}_d64_s4096", which),
                 "plain": lambda: self.rate("terms_plain", which)}[name]()
        if name == "avx2":
            own = rates.get("dlattn-avx2")
        return own["gflops"] / other if own and other else None


def judge(results: Results) -> list[tuple[Goal, float, float, str]]:
    """Each goal that the file can judge, with its worst and its median number and the case of the worst."""
    judged = []
    for goal in GOALS:
        numbers = [(value, f"{case} {which}") for case, which in results.order
                   if re.match(goal.cases, case) and goal.passes in (None, which)
                   and (value := results.measure(goal.measure, case, which)) is not None]
        if numbers:
            numbers.sort()
            judged.append((goal, numbers[0][0], numbers[len(numbers) // 2][0], numbers[0][1]))
    return judged
