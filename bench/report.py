"""Makes tables (Markdown) and pictures (PNG) from the JSON files of bench/peers.py (CPU), bench/compare.py (GPU) and
bench/languages.py.

    python bench/report.py [FILE ...] [--markdown bench/results/README.md] [--pictures docs/pictures]

Without FILE: all of bench/results/*.json. The tables cover every file, the pictures the first one of each kind.
"""
import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import gpu_report
import language_report
from goals import Results, judge
from gpu_report import table

TOP = Path(__file__).resolve().parents[1]
COLOURS = {"dlattn": "#1b6ca8", "torch": "#d1495b", "jax": "#7a9e3a"}
NAMES = {"dlattn": "dlattn", "torch": "PyTorch", "jax": "JAX", "dlattn-avx2": "AVX2 code", "dlattn-1": "1 thread"}
GROUPS = [("sizes", "Head sizes and lengths"), ("lengths", "By length, causal, head size 64"), ("bias", "Dense bias and its gradient"),
          ("gqa", "Grouped heads, 8 on 2"), ("window", "Window of 256 keys at 8192 tokens"), ("short", "256 tokens"),
          ("terms", "Each term beside the plain problem"), ("decode", "Decode: rows of one key head on 16384 keys")]


# ---- tables ----------------------------------------------------------------------------------------------------------

def heading(results: Results) -> str:
    document = results.document
    machine, peaks = document["machine"], document["peaks"]["before"]
    versions = ", ".join(f"{NAMES.get(name, name)} {version}" for name, version in sorted(document["versions"].items()))
    flags = " ".join(flag for flag in machine["isa_flags"] if flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16"))
    return (f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores ({flags}); multiply-add peak {peaks['f32']:.0f} GFLOP/s, "
            f"bf16 {peaks['bf16']:.0f}; pure reads {peaks['read']:.1f} GB/s. {versions}; commit {document['commit']}, {document['date']}.")


def goals_table(results: Results) -> str:
    rows = [["goal", "wanted", "worst", "median", "", "worst case"]]
    for goal, worst, median, where in judge(results):
        rows.append([goal.text, f"{goal.least:.2f}", f"{worst:.2f}", f"{median:.2f}", "yes" if worst >= goal.least else "no", f"`{where}`"])
    return table(rows)


def group_table(results: Results, tag: str) -> str:
    keys = [key for key in results.order if tag in next(iter(results.by_key[key].values()))["tags"]]
    present = {provider for key in keys for provider in results.by_key[key]}
    peers = [name for name in ("torch", "jax", "dlattn-avx2", "dlattn-1") if name in present]
    if not keys:
        return ""
    rows = [["case", "pass", "ms", "GB/s" if tag == "decode" else "GFLOP/s", "of the peak"] +
            [f"{NAMES[name]}, ms" for name in peers] + [f"times {NAMES[name]}" for name in peers if name in ("torch", "jax")]]
    for key in keys:
        found = results.by_key[key]
        own, rate = found["dlattn"], found["dlattn"].get("read_gbs", found["dlattn"]["gflops"])
        part = results.measure("read" if tag == "decode" else "peak", *key)
        rows.append([f"`{key[0]}`", key[1], f"{own['ms']:.3f}", f"{rate:.1f}" if tag == "decode" else f"{rate:.0f}", f"{100 * part:.0f} %"] +
                    [f"{found[name]['ms']:.3f}" if name in found else "" for name in peers] +
                    [f"{found[name]['ms'] / own['ms']:.2f}" if name in found else "" for name in peers if name in ("torch", "jax")])
    return table(rows)


def markdown(all_results: list[tuple[str, Results]], gpu: list[tuple[str, dict]], languages: list[tuple[str, dict]]) -> str:
    parts = ["# Measured speed\n\nMade by `python bench/report.py` from the JSON files in this folder; `make bench-peers` measures again. "
             "GFLOP/s count visible pairs: 2(D+E) each in the forward, 2.5 times that in the backward. Times are medians; the "
             "libraries take turns, called through their Python packages, on the same tensors and threads."]
    for name, results in all_results:
        parts += [f"## {name}\n\n{heading(results)}", goals_table(results)]
        for tag, title in GROUPS:
            if text := group_table(results, tag):
                parts.append(f"### {title}\n\n{text}")
    for name, document in gpu:
        parts += gpu_report.markdown(name, document)
    for name, document in languages:
        parts += language_report.markdown(name, document)
    return "\n\n".join(parts) + "\n"


# ---- pictures --------------------------------------------------------------------------------------------------------

def finish(figure, path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    print(f"{path} ({path.stat().st_size // 1024} KB)")


def speed_by_length(results: Results, path: Path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for axis, dtype, title in zip(axes, ("f32", "bf16"), ("float32", "bfloat16")):
        for provider in ("dlattn", "torch", "jax"):
            for which, style, marker in (("forward", "-", "o"), ("backward", "--", "s")):
                points = sorted((int(case.rsplit("_", 1)[1]), found[provider]["gflops"]) for (case, of), found in results.by_key.items()
                                if case.startswith(f"length_{dtype}_") and of == which and provider in found)
                if points:
                    axis.plot(*zip(*points), style, marker=marker, markersize=4, color=COLOURS[provider], label=f"{NAMES[provider]} {which}")
        axis.axhline(results.document["peaks"]["before"][dtype], color="grey", linestyle=":", label="multiply-add peak")
        axis.set(xscale="log", title=f"causal, {title}, head size 64", xlabel="tokens", xlim=(210, 20000), ylim=(0, None))
        lengths = [256, 512, 1024, 2048, 4096, 8192, 16384]
        axis.set_xticks(lengths, [str(n) for n in lengths], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("GFLOP/s")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    finish(figure, path)


RATIO_ROWS = [("full_f32_d64_s1024", "fp32, D 64, 1024"), ("full_f32_d128_s4096", "fp32, D 128, 4096"),
              ("causal_f32_d64_s1024", "fp32 causal, D 64, 1024"), ("causal_f32_d128_s4096", "fp32 causal, D 128, 4096"),
              ("full_bf16_d64_s1024", "bf16, D 64, 1024"), ("full_bf16_d128_s4096", "bf16, D 128, 4096"),
              ("causal_bf16_d128_s1024", "bf16 causal, D 128, 1024"), ("full_f16_d64_s1024", "fp16, D 64, 1024"),
              ("bias_dbias_f32_d64", "bias and dbias, fp32, 1024"), ("gqa_bf16_d128", "heads 8:2, bf16, 1024"),
              ("window_256_s8192", "window 256, fp32, 8192"), ("short_f32_s256", "fp32, D 64, 256"),
              ("decode_4_rows_f32", "decode, 16384 keys, fp32"), ("decode_4_rows_bf16", "decode, 16384 keys, bf16")]


def ratio_to_peers(results: Results, path: Path):
    rows = [(case, label) for case, label in RATIO_ROWS if (case, "forward") in results.by_key][::-1]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.36 * len(rows) + 1), sharey=True, sharex=True)
    for axis, which in zip(axes, ("forward", "backward")):
        for peer, shift in (("torch", 0.2), ("jax", -0.2)):
            bars = [(y, results.measure(peer, case, which)) for y, (case, _) in enumerate(rows) if (case, which) in results.by_key]
            bars = [(y, value) for y, value in bars if value is not None]
            if not bars:
                continue
            axis.barh([y + shift for y, _ in bars], [value for _, value in bars], 0.36, color=COLOURS[peer], label=f"times {NAMES[peer]}")
            for y, value in bars:
                axis.text(value * 1.03, y + shift, f"{value:.1f}", va="center", fontsize=7)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", title=which, xlim=(0.25, None))
        axis.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axis.minorticks_off()
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(rows)), [label for _, label in rows], fontsize=8)
    axes[1].legend(fontsize=8, loc="lower right")
    figure.suptitle("How many times as fast as each peer, same threads, same run", fontsize=11, y=1.0)
    figure.subplots_adjust(top=1 - 0.6 / figure.get_figheight())
    finish(figure, path)


def fraction_of_peak(results: Results, path: Path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    columns = [(dtype, size) for dtype in ("f32", "f16", "bf16") for size in (64, 128, 256)]
    for axis, which in zip(axes, ("forward", "backward")):
        for provider, shift in (("dlattn", -0.2), ("torch", 0.2)):
            bars = [(x, result["gflops"] / result["peak_gflops"]) for x, (dtype, size) in enumerate(columns)
                    if (result := results.by_key.get((f"full_{dtype}_d{size}_s4096", which), {}).get(provider))]
            if bars:
                axis.bar([x + shift for x, _ in bars], [100 * value for _, value in bars], 0.38, color=COLOURS[provider], label=NAMES[provider])
            for x, value in bars:
                axis.text(x + shift, 100 * value + 1, f"{100 * value:.0f}", ha="center", fontsize=7)
        axis.set(title=f"{which}, 4096 tokens", ylim=(0, 105))
        axis.set_xticks(range(len(columns)), [f"{dtype}\n{size}" for dtype, size in columns], fontsize=8)
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("% of the multiply-add peak")
    if axes[0].patches:
        axes[0].legend(fontsize=8)
    finish(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("files", nargs="*", type=Path)
    options.add_argument("--markdown", type=Path, default=TOP / "bench" / "results" / "README.md")
    options.add_argument("--pictures", type=Path, default=TOP / "docs" / "pictures")
    options = options.parse_args()
    files = options.files or sorted((TOP / "bench" / "results").glob("*.json"))
    if not files:
        raise SystemExit("report: no JSON file in bench/results; run make bench-peers")
    documents = [(path.stem, json.loads(path.read_text())) for path in files]
    documents = [(name, document) for name, document in documents if "judgement" not in document]  # sweeps: bench/sweep.py tells of them
    languages = [(name, document) for name, document in documents if language_report.is_languages(document)]
    everything = [(name, Results(document)) for name, document in documents
                  if not gpu_report.is_gpu(document) and not language_report.is_languages(document)]
    gpu = [(name, document) for name, document in documents if gpu_report.is_gpu(document)]
    options.markdown.parent.mkdir(parents=True, exist_ok=True)
    options.markdown.write_text(markdown(everything, gpu, languages))
    print(options.markdown)
    if everything:
        speed_by_length(everything[0][1], options.pictures / "speed_by_length.png")
        ratio_to_peers(everything[0][1], options.pictures / "ratio_to_peers.png")
        fraction_of_peak(everything[0][1], options.pictures / "fraction_of_peak.png")
    if gpu:
        gpu_report.pictures(gpu[0][1], finish, plt, options.pictures)


if __name__ == "__main__":
    main()
