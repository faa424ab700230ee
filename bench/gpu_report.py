"""Tables and pictures from the JSON files of bench/compare.py; called by bench/report.py."""
from __future__ import annotations

from pathlib import Path

from gpu_goals import judge, rates

PEERS = ("flash", "cudnn", "flash3", "flex", "efficient")
NAMES = {"dlattn": "dlattn", "flash": "FlashAttention-2", "cudnn": "cuDNN", "flash3": "FlashAttention-3", "flex": "FlexAttention", "efficient": "memory-efficient",
         "sm80": "own sm80"}
COLUMNS = ("sm80", *PEERS)
COLOURS = {"dlattn": "#1b6ca8", "flash": "#d1495b", "cudnn": "#7a9e3a", "flash3": "#3a3a3a", "flex": "#e0a030", "efficient": "#8d6a9f"}
GROUPS = [("lengths", "Head sizes and lengths, 16384 tokens in all, hidden size 2048"), ("window", "Windows at 16384 tokens"),
          ("bias", "Dense bias at 4096 tokens; the backward includes its gradient"), ("terms", "Each term at 4096 tokens"),
          ("shapes", "Other shapes: grouped heads, packed lengths, head sizes between powers of two, float16"),
          ("small", "Small: B 1, H 8, S 512, from a captured graph"),
          ("decode", "Decoding: B 8, one query, 32 heads that share 8 key heads, D 128, 16384 keys, which are read at 0.25 TB/s for each TFLOP/s")]


def is_gpu(document: dict) -> bool:
    return "gpu" in document["machine"]


# ---- tables ----------------------------------------------------------------------------------------------------------

def heading(document: dict) -> str:
    machine, peaks, clock, versions = document["machine"], document["peaks"], document["clock"], document["versions"]
    clocks = (f"; SM clock {clock['sm_mhz_median']:.0f} MHz in the middle, {clock['sm_mhz_lowest']:.0f} at the lowest, of "
              f"{machine['sm_mhz_most']}; {clock['watts_median']:.0f} W") if clock else ""
    return (f"{machine['gpu']}, driver {machine['driver']}; a bf16 product of 8192^3 ran at {peaks['gemm_gflops_before'] * 1e-3:.0f} TFLOP/s before "
            f"and {peaks['gemm_gflops_after'] * 1e-3:.0f} after{clocks}. PyTorch {versions['torch']} with its FlashAttention-2, cuDNN "
            f"{versions['cudnn']}, memory-efficient and FlexAttention kernels; dlattn {versions['dlattn']}, commit {document['commit']}, "
            f"{document['date']}.")


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(lines)


def goals_table(document: dict) -> str:
    rows = [["goal", "wanted", "worst", "median", "met", "worst case"]]
    for goal, ratios in judge(document):
        if ratios:
            met = sum(value >= goal.least for value, _ in ratios)
            rows.append([goal.text, f"{goal.least:.2f}", f"{ratios[0][0]:.2f}", f"{ratios[len(ratios) // 2][0]:.2f}", f"{met} of {len(ratios)}",
                         f"`{ratios[0][1]}`"])
    return table(rows)


def group_table(document: dict, tag: str) -> str:
    results = [r for r in document["results"] if tag in r["tags"]]
    own = [r for r in results if r["provider"] == "dlattn"]
    found = rates(document)
    peers = [peer for peer in COLUMNS if any(r["provider"] == peer for r in results)]
    eager = {(r["case"], r["pass"], r["provider"]): r["eager_ms"] * 1e3 for r in results if "eager_ms" in r}
    rows = [["case", "pass", "ms", "host µs", "TFLOP/s"] + [NAMES[peer] for peer in peers] + [f"times {NAMES[peer]}" for peer in peers] +
            ([f"eager {NAMES[name]}, µs" for name in ("dlattn", *peers)] if eager else []) + ["error"]]
    for r in own:
        others = [found.get((r["case"], r["pass"], peer)) for peer in peers]
        rows.append([f"`{r['case']}`", r["pass"], f"{r['ms']:.3f}", f"{r['host_us']:.1f}", f"{r['gflops'] * 1e-3:.0f}"] +
                    [f"{rate * 1e-3:.0f}" if rate else "" for rate in others] + [f"{r['gflops'] / rate:.2f}" if rate else "" for rate in others] +
                    ([f"{eager[key]:.1f}" if (key := (r["case"], r["pass"], name)) in eager else "" for name in ("dlattn", *peers)]
                     if eager else []) +
                    [f"{max(r['errors'].values()):.1e}"])
    return table(rows) if own else ""


def host_table(document: dict) -> str:
    rows = [["C call", "entry to the launch, µs", "whole call, µs"]]
    rows += [[call["call"], f"{call['to_launch_us']:.2f}", f"{call['whole_us']:.2f}"] for call in document["host"]["calls"]]
    return table(rows)


def markdown(name: str, document: dict) -> list[str]:
    parts = [f"## {name}\n\n{heading(document)} Made by `bench/compare.py`: bfloat16; TFLOP/s count visible pairs; the peers' columns are "
             "TFLOP/s too. error: the largest difference to float32 math, as a fraction of the largest value, over all results of the row.",
             goals_table(document)]
    for tag, title in GROUPS:
        if text := group_table(document, tag):
            parts.append(f"### {title}\n\n{text}")
    if "host" in document:
        parts.append(f"### Time on the host, by `bench/host_time.c`\n\n{host_table(document)}")
    return parts


# ---- pictures --------------------------------------------------------------------------------------------------------

def speed_by_length(document: dict, finish, plot, path: Path) -> None:
    """A row of axes per pass, a column per head size; full lines for full attention, dashed ones for causal."""
    found, lengths = rates(document), (1024, 4096, 16384)
    figure, axes = plot.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row")
    for across, which in zip(axes, ("forward", "backward")):
        for axis, size in zip(across, (64, 128, 256)):
            for provider in ("dlattn", "flash", "cudnn", "flash3"):
                for kind, style, marker in (("full", "-", "o"), ("causal", "--", "s")):
                    points = [(length, found[key] * 1e-3) for length in lengths if (key := (f"{kind}_d{size}_s{length}", which, provider)) in found]
                    if points:
                        axis.plot(*zip(*points), style, marker=marker, markersize=4, color=COLOURS[provider], label=f"{NAMES[provider]}, {kind}")
            axis.set(xscale="log", title=f"{which}, head size {size}", xlim=(850, 20000))
            axis.set_xticks(lengths, [f"{length // 1024}k" for length in lengths])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        across[0].set_ylim(0, None)  # last: setting a limit ends the scaling that the axes of a row share
        across[0].set_ylabel("TFLOP/s")
    for axis in axes[1]:
        axis.set_xlabel("tokens of a sequence")
    figure.suptitle(f"bfloat16, 16384 tokens in all, hidden size 2048, {document['machine']['gpu']}", fontsize=10)
    labelled = max(axes.flat, key=lambda axis: len(axis.get_lines()))
    figure.legend(*labelled.get_legend_handles_labels(), fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.03))
    finish(figure, path)


def ratio_to_peers(document: dict, finish, plot, path: Path) -> None:
    """How many times as fast as each peer, a bar each."""
    found = rates(document)
    cases = [case for case in dict.fromkeys(r["case"] for r in document["results"] if r["provider"] == "dlattn")
             if any((case, "forward", peer) in found for peer in PEERS)][::-1]
    if not cases:
        return
    figure, axes = plot.subplots(1, 2, figsize=(10, 0.34 * len(cases) + 1), sharey=True, sharex=True)
    for axis, which in zip(axes, ("forward", "backward")):
        for y, case in enumerate(cases):
            present = [peer for peer in PEERS if (case, which, peer) in found and (case, which, "dlattn") in found]
            height = 0.8 / max(1, len(present))
            for n, peer in enumerate(present):
                value, at = found[(case, which, "dlattn")] / found[(case, which, peer)], y + 0.4 - height * (n + 0.5)
                axis.barh(at, value, height * 0.9, color=COLOURS[peer])
                axis.text(value + 0.02, at, f"{value:.2f}", va="center", fontsize=5.5)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(title=which, ylim=(-0.6, len(cases) - 0.4))
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(cases)), cases, fontsize=7)
    handles = [plot.Rectangle((0, 0), 1, 1, color=COLOURS[peer]) for peer in PEERS]
    axes[1].legend(handles, [f"times {NAMES[peer]}" for peer in PEERS], fontsize=7, loc="lower right")
    figure.suptitle(f"How many times as fast as each peer, same run, {document['machine']['gpu']}", fontsize=11, y=1.0)
    figure.subplots_adjust(top=1 - 0.6 / figure.get_figheight())
    finish(figure, path)


def pictures(document: dict, finish, plot, folder: Path) -> None:
    speed_by_length(document, finish, plot, folder / "gpu_speed_by_length.png")
    ratio_to_peers(document, finish, plot, folder / "gpu_ratio_to_peers.png")
