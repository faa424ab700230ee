"""Tables from the JSON files of bench/languages.py; called by that and by bench/report.py."""
from __future__ import annotations

import statistics

from gpu_report import table

NAMES = {"c": "C", "python": "Python", "julia": "Julia", "rust": "Rust"}
LONG_MS = 1.0  # shorter calls are all overhead, which has a table of its own


def is_languages(document: dict) -> bool:
    return "languages" in document


def by_case(document: dict) -> dict:
    """{(case, pass): {language or provider: result}}, C's own under "c"."""
    found = {}
    for r in document["results"]:
        key = r["language"] if r["provider"] == "dlattn" else r["provider"]
        found.setdefault((r["case"], r["pass"]), {})[key] = r
    return found


def others(document: dict) -> list[str]:
    return [language for language in document["languages"] if language != "c"]


def providers(document: dict) -> list[str]:
    return sorted({r["provider"] for r in document["results"]} - {"dlattn"})


def ratios(document: dict, key: str, least_ms: float = LONG_MS) -> list[tuple[float, str]]:
    """C's time in terms of the other's, from the worst case on."""
    return sorted((found["c"]["ms"] / found[key]["ms"], f"{case} {which}") for (case, which), found in by_case(document).items()
                  if key in found and found["c"]["ms"] >= least_ms)


def reach_table(document: dict) -> str:
    rows = [["of C's speed", "cases and passes", "median", "worst", "in"]]
    for language in others(document):
        if numbers := ratios(document, language):
            rows.append([NAMES[language], str(len(numbers)), f"{statistics.median(value for value, _ in numbers):.3f}", f"{numbers[0][0]:.3f}",
                         f"`{numbers[0][1]}`"])
    return table(rows) if len(rows) > 1 else ""


def overhead_table(document: dict) -> str:
    rows = [["call with one score", "forward, µs", "backward, µs", "more than C: forward", "backward"]]
    times = {which: found for (case, which), found in by_case(document).items() if case == "overhead"}
    if not times:
        return ""
    for language in document["languages"]:
        own = [times[which][language]["ms"] * 1e3 for which in ("forward", "backward")]
        more = [value - times[which]["c"]["ms"] * 1e3 for value, which in zip(own, ("forward", "backward"))]
        rows.append([NAMES[language], *(f"{value:.2f}" for value in own), *(f"{value:.2f}" if language != "c" else "" for value in more)])
    return table(rows)


def case_table(document: dict) -> str:
    languages, beside = others(document), providers(document)
    rows = [["case", "pass", "C, ms", "GFLOP/s", *(NAMES[language] for language in languages), *(f"times {name}" for name in beside)]]
    for (case, which), found in by_case(document).items():
        own = found["c"]
        rows.append([f"`{case}`", which, f"{own['ms']:.4f}" if own["ms"] < 1 else f"{own['ms']:.3f}", f"{own['gflops']:.1f}",
                     *(f"{own['ms'] / found[name]['ms']:.3f}" if name in found else "" for name in languages),
                     *(f"{found[name]['ms'] / own['ms']:.2f}" if name in found else "" for name in beside)])
    return table(rows)


def summary(document: dict) -> str:
    return "\n\n".join(text for text in (reach_table(document), overhead_table(document)) if text)


def markdown(name: str, document: dict) -> list[str]:
    head, versions = document["machine"], document["versions"]
    parts = [f"## {name}\n\n{head['cpu']}, {head['threads']} of {head['cores']} cores. dlattn {versions['dlattn']} from C"
             + "".join(f", {NAMES[language]} {versions[language]}" for language in others(document))
             + f"; commit {document['commit']}, {document['date']}. Made by `bench/languages.py`: the same cases and data, results written "
             f"into memory that is there; the languages take turns; a time is the least of {document['rounds']} rounds' medians."]
    if text := reach_table(document):
        parts.append(f"### Every language reaches C's figure\n\nC's time by the language's, calls of at least {LONG_MS:g} ms.\n\n{text}")
    if text := overhead_table(document):
        parts.append(f"### What a call costs\n\n{text}")
    note = "".join(f"; times {provider}: how many times as fast as that provider, called from C" for provider in providers(document))
    parts.append(f"### Each case\n\nC's time, and its ratio to each language's{note}.\n\n{case_table(document)}")
    return parts
