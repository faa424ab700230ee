"""The tables that bench/pages.py puts into README.md and docs/kernels.md, from the JSON files of bench/results."""
from __future__ import annotations

import re
import statistics

import language_report
from goals import Results
from gpu_goals import rates

NAMES = {"cudnn": "cuDNN", "flash3": "FlashAttention 3", "flash": "FlashAttention-2", "torch": "PyTorch", "jax": "JAX"}
PEERS = ("cudnn", "flash3")


def table(rows: list[list[str]]) -> str:
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0])] + lines[1:])


def span(values) -> str:
    """The least to the most; nothing where there are none."""
    found = sorted(value for value in values if value is not None)
    if not found:
        return ""
    low, high = f"{found[0]:.2f}", f"{found[-1]:.2f}"
    if found[-1] >= 10:
        low, high = f"{found[0]:.1f}", f"{found[-1]:.1f}"
    return low if low == high else f"{low} to {high}"


# ---- a GPU -----------------------------------------------------------------------------------------------------------

LENGTHS = [(D, length) for D in (64, 128, 256) for length in (1024, 4096, 16384)]
SHAPES = [("window 1024 at 16k, d64 / d128", ["window1024_d64_s16384", "window1024_d128_s16384"]),
          ("window 4096 at 64k, d128", ["window4096_d128_s65536"]),
          ("block window 256 x 16 at 16k, d64 / d128", ["blocks256x16_d64_s16384", "blocks256x16_d128_s16384"]),
          ("d128, 32 heads on 8, causal, 8k", ["gqa_causal_d128_s8192"]),
          ("d128, packed: 16 sequences of mixed length", ["packed_full_d128"]),
          ("d80 / d96 / d112 / d160 full, 4k", [f"full_d{D}_s4096" for D in (80, 96, 112, 160)])]
TERMS = [("ALiBi", "alibi"), ("softcap", "softcap"), ("sinks", "sinks"), ("segments of 1024", "segments"), ("dropout", "dropout"),
         ("bias shared by the batch (backward: and its gradient)", "bias_1hmn"), ("bias of each sequence", "bias_bhmn")]


def of_run(document: dict) -> str:
    machine, peaks, versions = document["machine"], document["peaks"], document["versions"]
    return (f"One process on an {machine['gpu']}, dlattn at commit {document['commit']} beside PyTorch {versions['torch'].split('+')[0]} "
            f"with its cuDNN and FlashAttention 3 (as xformers ships it), bfloat16, 16384 tokens, heads times D 2048, TFLOP/s of visible "
            f"pairs, medians of rounds in turns; a product of 8192^3 in the same run: {peaks['gemm_gflops_before'] * 1e-3:.0f}.")


def side_by_side(values, digits: int) -> str:
    """1 / 2; nothing where all are missing."""
    found = [f"{value:.{digits}f}" if value else "-" for value in values]
    return " / ".join(found) if any(values) else ""


def status(document: dict, which: str) -> str:
    """The one table of a pass."""
    found = rates(document)
    rows = [["row", "dlattn", *(NAMES[peer] for peer in PEERS), *(f"times {NAMES[peer]}" for peer in PEERS), "of the plain row"]]

    def add(title: str, cases: list[str], plain: list[str] = ()):
        own = [found.get((case, which, "dlattn")) for case in cases]
        if not any(own):
            return
        peers = [[found.get((case, which, peer)) for case in cases] for peer in PEERS]
        times = [[a / b if a and b else None for a, b in zip(own, peer)] for peer in peers]
        share = [a / b if a and b else None for a, b in zip(own, (found.get((case, which, "dlattn")) for case in plain))]
        rows.append([title, f"**{side_by_side([a and a * 1e-3 for a in own], 0)}**",
                     *(side_by_side([b and b * 1e-3 for b in peer], 0) for peer in peers),
                     *(side_by_side(values, 2) for values in times), side_by_side(share, 2)])

    for D, length in LENGTHS:
        add(f"d{D}, {length // 1024}k, full / causal", [f"{kind}_d{D}_s{length}" for kind in ("full", "causal")])
    for title, cases in SHAPES:
        add(title, cases)
    for title, term in TERMS:
        add(f"{title}, 4k, d64 / d128", [f"{term}_d{D}_s4096" for D in (64, 128)], [f"full_d{D}_s4096" for D in (64, 128)])
    return f"{of_run(document)}\n\n{table(rows)}"


# What was predicted before anything was written, for an H200: TFLOP/s.
PLAN = [("forward d128 full 16k", "full_d128_s16384", "forward", 670), ("forward d128 causal 16k", "causal_d128_s16384", "forward", 650),
        ("forward d64 full 16k", "full_d64_s16384", "forward", 540), ("forward d64 causal 16k", "causal_d64_s16384", "forward", 510),
        ("forward d256 full 16k", "full_d256_s16384", "forward", 700), ("forward d256 causal 4k", "causal_d256_s4096", "forward", 640),
        ("backward d128 full 16k", "full_d128_s16384", "backward", 580),
        ("backward d128 causal 16k", "causal_d128_s16384", "backward", 555), ("backward d64 full 16k", "full_d64_s16384", "backward", 510),
        ("backward d256 causal 4k", "causal_d256_s4096", "backward", 520)]


def plan(document: dict) -> str:
    found = rates(document)
    rows = [["row", "predicted", "measured", "times"]]
    for title, case, which, wanted in PLAN:
        if own := found.get((case, which, "dlattn")):
            rows.append([title, str(wanted), f"{own * 1e-3:.0f}", f"{own * 1e-3 / wanted:.2f}"])
    return table(rows)


SIZES = [("D 64 and 128, from 4096 tokens", r"(full|causal)_d(64|128)_s(4096|16384)$"),
         ("D 64 and 128, 1024 tokens", r"(full|causal)_d(64|128)_s1024$"), ("D 256", r"(full|causal)_d256_"),
         ("grouped heads, D 80 to 160", r"gqa_|full_d(80|96|112|160)_")]
GPU_ROWS = [("cuDNN", "cudnn", SIZES),
            ("FlashAttention 3", "flash3", [*SIZES, ("windows of 1024 keys", r"window1024_"), ("packed lengths", r"packed_")]),
            ("FlashAttention-2", "flash", [("all of these", r"(full|causal)_d|gqa_")]),
            ("FlexAttention", "flex", [("dense bias, block windows", r"bias_|blocks")]),
            ("memory-efficient kernels", "efficient", [("dense bias; its gradient", r"bias_")])]


def gpu_summary(document: dict) -> str:
    found = rates(document)
    rows = [["times as fast as", "rows", "forward", "backward"]]
    for title, peer, groups in GPU_ROWS:
        for label, pattern in groups:
            spans = [span(found[key] / found[key[0], which, peer] for key in found if key[1:] == (which, "dlattn")
                          and re.match(pattern, key[0]) and (key[0], which, peer) in found) for which in ("forward", "backward")]
            if any(spans):
                rows.append([title, label, *spans])
                title = ""
    rows.append(["of the plain row's rate", "", "", ""])
    for label, term in TERMS:
        cells = [span(found[key] / found[f"full_d{D}_s4096", key[1], "dlattn"] for D in (64, 128)
                      if (key := (f"{term}_d{D}_s4096", which, "dlattn")) in found) for which in ("forward", "backward")]
        if any(cells):
            rows.append(["", f"{label}, 4096 tokens", *cells])
    calls = [call["to_launch_us"] for call in document.get("host", {}).get("calls", [])]
    host = f"\n\nA C call reaches its launch in {min(calls):.1f} to {max(calls):.1f} microseconds." if calls else ""
    return f"{of_run(document)}\n\n{table(rows)}{host}"


# ---- a CPU -----------------------------------------------------------------------------------------------------------

CPU_ROWS = [("float32, D 64 and 128", r"full_f32_d(64|128)_"), ("float32, causal", r"causal_f32_d(64|128)_"),
            ("bfloat16, D 64 and 128", r"full_bf16_d(64|128)_"), ("bfloat16, causal", r"causal_bf16_d(64|128)_"),
            ("float16, D 64 and 128", r"(full|causal)_f16_d(64|128)_"), ("D 256, all three", r"(full|causal)_\w+_d256_"),
            ("window of 256 keys at 8192 tokens", r"window_256_"), ("dense bias with its gradient", r"bias_"),
            ("grouped heads, 8 on 2", r"gqa_"), ("decoding, 4 rows on 16384 keys", r"decode_4_rows_")]


def cpu_summary(document: dict) -> str:
    results, machine, versions = Results(document), document["machine"], document["versions"]
    rows = [["times as fast", *(f"{NAMES[peer]}, {which}" for peer in ("torch", "jax") for which in ("forward", "backward"))]]
    for title, pattern in CPU_ROWS:
        cells = [span(results.measure(peer, *key) for key in results.order if key[1] == which and re.match(pattern, key[0]))
                 for peer in ("torch", "jax") for which in ("forward", "backward")]
        if any(cells):
            rows.append([title, *cells])
    fastest = [max(found["dlattn"]["gflops"] for key, found in results.by_key.items() if "dlattn" in found and f"_{dtype}_" in key[0])
               for dtype in ("f32", "bf16")]
    return (f"{machine['threads']} threads of an {machine['cpu'].replace('(R)', '')} with AVX-512 and AMX, PyTorch "
            f"{versions['torch'].split('+')[0]} and JAX {versions['jax']} in the same process; at most {fastest[0]:.0f} GFLOP/s in "
            f"float32 and {fastest[1]:.0f} in bfloat16.\n\n{table(rows)}")


def language_summary(document: dict) -> str:
    others = language_report.others(document)
    values = [value for language in others for value, _ in language_report.ratios(document, language)]
    calls = language_report.by_case(document)["overhead", "forward"]
    own = calls["c"]["ms"] * 1e3
    named = ", ".join(f"{calls[language]['ms'] * 1e3:.1f} from {language_report.NAMES[language]}" for language in others)
    return (f"Every language reaches the speed of C: {statistics.median(values):.2f} of it in the middle of {len(values)} timings. A call "
            f"of one score takes {own:.1f} microseconds from C, {named} ([bench/results](bench/results/README.md#languages_avx512)).")
