"""bench/languages.py runs every language that is installed on the same cases, and all of them write the same schema.

DLATTN_BUILD says where the library was built. A language that is missing is left out; with DLATTN_NO_SKIP set that is a
failure.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ["DLATTN_BUILD"])
NUMBERS = ("ms", "gflops", "peak_gflops", "mean_abs")
sys.path.insert(0, str(TOP / "bench"))


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("bench") / "languages.json"
    subprocess.run([sys.executable, TOP / "bench" / "languages.py", "--quick", "--threads", "2", "--build", BUILD, "--output", output], check=True)
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def cases() -> dict:
    run = subprocess.run([BUILD / "dlattn", "bench", "--list", "--json"], capture_output=True, text=True, check=True)
    return {case["name"]: case for case in json.loads(run.stdout)}


def of(document: dict, language: str, provider: str = "dlattn") -> list[dict]:
    return [r for r in document["results"] if r["language"] == language and r["provider"] == provider]


def test_the_table_as_json(cases):
    names = subprocess.run([BUILD / "dlattn", "bench", "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert list(cases) == names and len(set(names)) == len(names)
    for case in cases.values():
        assert {"dtype", "layout", "flags", *"BHGMNDE"} <= set(case)


def test_languages_that_are_missing(document):
    assert set(document["languages"]) | set(document["skipped"]) == {"c", "python", "julia", "rust"}
    if os.environ.get("DLATTN_NO_SKIP"):
        assert not document["skipped"]


def test_every_language_writes_the_same_schema(document, cases):
    fields = set(of(document, "c")[0]) - {"error_ratio"}
    for result in document["results"]:
        assert fields <= set(result), (result["language"], fields - set(result))
        assert all(isinstance(result[name], (int, float)) and result[name] > 0 for name in NUMBERS), result
        assert isinstance(result["repeats"], int) and result["repeats"] >= 5 and result["threads"] == 2
        assert result["problem"] == cases[result["case"]]
        by_tiles = result["isa"] == "amx" and result["dtype"] == "bf16"
        assert (result["peak_isa"] == "amx") == by_tiles and result["gflops"] < 1.1 * result["peak_gflops"], result


def test_every_language_runs_every_case(document):
    wanted = {(r["case"], r["pass"]) for r in of(document, "c")}
    assert len(wanted) == 12
    for language in document["languages"]:
        missing = wanted - {(r["case"], r["pass"]) for r in of(document, language)}
        assert not missing or (language == "julia" and {case for case, _ in missing} == {"small_bf16"})  # without BFloat16s


def test_every_language_computes_the_same(document):
    means = {(r["case"], r["pass"]): r["mean_abs"] for r in of(document, "c")}
    for r in document["results"]:
        assert r["provider"] != "dlattn" or r["mean_abs"] == pytest.approx(means[r["case"], r["pass"]], rel=1e-5), r


def test_results_are_right(document):
    """By the accuracy rule, against the oracle: the library and the sample provider, which is the formula itself."""
    judged = of(document, "c")
    if (BUILD / "providers" / "blas.so").exists():
        provided = of(document, "c", "blas")
        assert {(r["case"], r["pass"]) for r in provided} >= {("small_plain", "forward"), ("small_plain", "backward")}
        judged += provided
    assert all(r["error_ratio"] <= 1 for r in judged), [(r["provider"], r["case"], r["error_ratio"]) for r in judged]


def test_the_sample_provider_is_there_where_nothing_may_be_skipped():
    assert (BUILD / "providers" / "blas.so").exists() or not os.environ.get("DLATTN_NO_SKIP")


def test_a_build_of_the_library_is_a_provider():
    """Through libffi it gives the very same results as by its own calls."""
    run = subprocess.run([BUILD / "bench_run", "1", "0.01", BUILD / "libdlattn.so"], input="small_everything\n", capture_output=True,
                         text=True, check=True)
    means = {(r["provider"], r["pass"]): r["mean_abs"] for r in json.loads(run.stdout)}
    assert len(means) == 4
    assert all(means["dlattn", which] == means["libdlattn", which] for which in ("forward", "backward"))


def test_the_report(document):
    from language_report import markdown

    text = "\n".join(markdown("quick", document))
    for language in document["languages"]:
        assert {"c": "C", "python": "Python", "julia": "Julia", "rust": "Rust"}[language] in text
    assert "| `small_everything` | backward |" in text and "What a call costs" in text
