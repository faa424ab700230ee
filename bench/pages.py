"""Writes the numbers and the drawings of README.md and docs/: what stands between `<!-- NAME: ... -->` and `<!-- end -->` comes
from bench/results and docs/ladder.json, docs/pictures/*.svg from docs/*.json.

    python3 bench/pages.py            writes what is stale
    python3 bench/pages.py --check    only says what is stale, and fails then (a test does)
"""
from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import ladder
import page_tables
import timeline
import timeline_backward

TOP = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/kernels.md", "docs/kernels_backward.md")
BLOCK = re.compile(r"(<!-- ([a-z ]+): made by bench/pages\.py -->\n)(.*?)(<!-- end -->)", re.S)


def read(path: str):
    return json.loads((TOP / path).read_text())


def blocks() -> dict[str, str]:
    gpu, cpu, languages, steps = (read(path) for path in ("bench/results/gpu_h100.json", "bench/results/xeon_amx.json",
                                                          "bench/results/languages_avx512.json", "docs/ladder.json"))
    found = {}
    for which in ("forward", "backward"):
        found[which] = page_tables.status(gpu, which)
        found[f"{which} ladder"] = page_tables.table(ladder.kept_table(steps[which]))
        found[f"{which} dropped"] = page_tables.table(ladder.dropped_table(steps[f"{which} dropped"]))
    found["plan"] = page_tables.plan(gpu)
    found["gpu"] = page_tables.gpu_summary(gpu)
    found["cpu"] = page_tables.cpu_summary(cpu)
    found["languages"] = page_tables.language_summary(languages)
    return found


def pictures() -> dict[str, str]:
    steps, clocks = read("docs/ladder.json"), {which: {name: value["clocks"] for name, value in clocks.items()}
                                               for which, clocks in read("docs/timeline.json").items()}
    return {"docs/pictures/forward_timeline.svg": timeline.draw(clocks["forward"]),
            "docs/pictures/backward_timeline.svg": timeline_backward.draw(clocks["backward"]),
            **{f"docs/pictures/{which}_ladder.svg": ladder.draw(which, steps[which], steps[f"{which} dropped"])
               for which in ("forward", "backward")}}


def filled(text: str, content: dict[str, str]) -> str:
    """A page with its blocks anew. A block of an unknown name is an error."""
    return BLOCK.sub(lambda match: match[1] + content[match[2]] + "\n" + match[4], text)


def stale() -> dict[str, str]:
    """{path: what it should hold}"""
    content, wanted = blocks(), pictures()
    for page in PAGES:
        wanted[page] = filled((TOP / page).read_text(), content)
    return {path: text for path, text in wanted.items() if not (TOP / path).is_file() or (TOP / path).read_text() != text}


def main() -> int:
    found = stale()
    for path, text in found.items():
        print(f"{path} is stale" if "--check" in sys.argv else f"wrote {path}")
        if "--check" not in sys.argv:
            (TOP / path).write_text(text)
    return 1 if found and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
