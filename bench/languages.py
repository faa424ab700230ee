"""Times the same cases from C, Python, Julia and Rust, in turns, and writes one JSON file.

    python bench/languages.py [--only PATTERN] [--quick] [--languages c,python,julia,rust] [--provider FILE.so] [--output FILE]

Each language has a runner (bench/run.c, run.py, run.jl, run.rs) that reads the case table of `dlattn bench --list --json`,
is told the name of a case and answers with its times. The runners are asked one after the other, case by case, in
rounds, so that a machine that drifts drifts for all; a time is the least of the rounds' medians. A language that is not
installed is named and left out. bench/README.md says what the fields of the file mean.
"""
import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from language_report import summary
from peers import TOP, commit, machine

QUICK = "^(overhead$|small_)"
KNOWN = {"name", "dtype", "B", "H", "G", "M", "N", "D", "E", "layout", "flags", "window", "block_window", "scale", "softcap", "dropout",
         "seed", "offset", "bias", "mask", "mask_kind", "alibi", "sinks", "segments", "forward_only"}  # what the runners understand
SAME = 1e-5  # mean_abs of two languages, relatively: C writes six digits


def read_options():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--only", default="", help="a regular expression for the names of cases")
    options.add_argument("--quick", action="store_true", help="the smallest cases alone, once: a test that all of it works")
    options.add_argument("--languages", default="c,python,julia,rust", help="with commas; C is always there")
    options.add_argument("--provider", type=Path, action="append", default=[], help="a shared object with dlattn_forward, beside C; "
                         "may be repeated. Default: the sample provider, where it was built")
    options.add_argument("--threads", type=int, default=0, help="default: every processor this process may use")
    options.add_argument("--budget", type=float, default=0.1, help="seconds per language, case, pass and round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--build", type=Path, default=TOP / "build" / "release", help="where the library was built")
    options.add_argument("--output", type=Path, help="default: languages.json there")
    options = options.parse_args()
    options.build = options.build.resolve()
    options.threads = options.threads or len(os.sched_getaffinity(0))
    options.output = options.output or options.build / "languages.json"
    if options.quick:
        options.only, options.rounds, options.budget = options.only or QUICK, 1, 0.02
    return options


# ---- the runners -----------------------------------------------------------------------------------------------------

class Missing(Exception):
    """A language that is not installed; why."""


def environment(build: Path, threads: int, **more: str) -> dict:
    return {**os.environ, "DLATTN_LIBRARY": str(build / "libdlattn.so"), "OPENBLAS_NUM_THREADS": str(threads), **more}


def c_runner(options, _, limits):
    sample = options.build / "providers" / "blas.so"
    providers = options.provider or [sample] * sample.exists()
    if not providers:
        print("without the sample provider: no BLAS was found (Debian: libopenblas-dev or libblas-dev)")
    return [options.build / "bench_run", *limits, *(path.resolve() for path in providers)], environment(options.build, options.threads)


def python_runner(options, cases, limits):
    for name in ("numpy", "ml_dtypes"):
        if importlib.util.find_spec(name) is None:
            raise Missing(f"{sys.executable} has no {name}")
    path = os.pathsep.join([str(TOP / "bindings" / "python" / "src"), os.environ.get("PYTHONPATH", "")])
    return [sys.executable, TOP / "bench" / "run.py", cases, *limits], environment(options.build, options.threads, PYTHONPATH=path)


def julia_runner(options, cases, limits):
    if not shutil.which("julia"):
        raise Missing("no julia on PATH; 1.5 or later, see julialang.org")
    julia = [TOP / "tests" / "bindings" / "with_julia.sh", options.build / "julia_bench"]
    return [*julia, TOP / "bench" / "run.jl", cases, *limits], environment(options.build, options.threads)


def rust_runner(options, cases, limits):
    if not shutil.which("cargo"):
        raise Missing("no cargo on PATH; on Debian or Ubuntu: apt-get install cargo-web, or cargo")
    target = options.build / "rust_bench"
    env = environment(options.build, options.threads, DLATTN_LIB_DIR=str(options.build), CARGO_TARGET_DIR=str(target),
                      LD_LIBRARY_PATH=f"{options.build}:{os.environ.get('LD_LIBRARY_PATH', '')}")

    def cargo(*arguments: str) -> int:
        return subprocess.run(["cargo", *arguments, "--quiet", "--locked"], cwd=TOP / "bindings" / "rust" / "bench", env=env).returncode

    if cargo("fetch") and cargo("fetch", "--offline"):
        raise Missing("the packages of bindings/rust/bench/Cargo.lock could not be fetched")
    if cargo("build", "--release", "--offline", "--bin", "run"):
        raise SystemExit("languages: bench/run.rs could not be built")
    return [target / "release" / "run", cases, *limits], env


RUNNERS = {"c": c_runner, "python": python_runner, "julia": julia_runner, "rust": rust_runner}
VERSIONS = {"julia": ["julia", "--version"], "rust": ["rustc", "--version"]}


class Runner:
    """A process that is asked for one case at a time."""

    def __init__(self, language: str, command: list, env: dict):
        self.language = language
        self.process = subprocess.Popen(list(map(str, command)), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, name: str) -> list[dict]:
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"languages: the runner of {self.language} ended at {name}, with {self.process.wait()}")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def start_runners(options, cases: Path) -> tuple[list[Runner], dict]:
    """The runners, C's first, and why others are missing."""
    wanted = options.languages.split(",")
    runners, skipped = [], {}
    for language, prepare in RUNNERS.items():
        if language not in wanted and language != "c":
            continue
        try:
            runners.append(Runner(language, *prepare(options, cases, [options.threads, options.budget])))
        except Missing as reason:
            skipped[language] = str(reason)
            print(f"skipped: {language}: {reason}")
    return runners, skipped


# ---- the cases -------------------------------------------------------------------------------------------------------

def read_cases(options) -> tuple[Path, list[dict]]:
    """The table, as a file for the runners and as what is to be run of it."""
    run = subprocess.run([options.build / "dlattn", "bench", "--list", "--json"], capture_output=True, text=True, check=True)
    path = options.build / "bench_cases.json"
    path.write_text(run.stdout)
    cases = json.loads(run.stdout)
    for case in cases:
        if unknown := set(case) - KNOWN:
            raise SystemExit(f"languages: the runners do not know {', '.join(sorted(unknown))} of {case['name']}")
    return path, [case for case in cases if re.search(options.only, case["name"])]


def merged(rounds: list[dict]) -> dict:
    """One result of the same result in each round: the fastest, for what else the machine does can only add."""
    return {**min(rounds, key=lambda r: r["ms"]), "repeats": sum(r["repeats"] for r in rounds)}


def complete(result: dict, own: dict) -> dict:
    """A result with all that follows from C's result of the same case and pass."""
    faster = own["ms"] / result["ms"]
    rates = {name: own[name] * faster for name in ("gflops", "read_gbs") if name in own}
    of_c = ("isa", "peak_gflops", "peak_isa", "peak_read_gbs", "problem")
    return {**result, **rates, **{name: own[name] for name in of_c if name in own}}


def time_case(case: dict, runners: list[Runner], rounds: int, pause: float) -> list[dict]:
    found = {}
    for turn in range(rounds):
        first = turn % len(runners)
        for runner in runners[first:] + runners[:first]:
            time.sleep(pause)  # threads of the one before may still spin
            for result in runner.ask(case["name"]):
                found.setdefault((result["language"], result["provider"], result["pass"]), []).append(result)
    results = {key: merged(part) for key, part in found.items()}
    for (language, provider, which), result in results.items():
        own = results["c", "dlattn", which]
        if language == "c":
            continue
        results[language, provider, which] = complete(result, own)
        if abs(result["mean_abs"] - own["mean_abs"]) > SAME * own["mean_abs"]:
            raise SystemExit(f"languages: {language} computes something else than C in {case['name']}, {which}: the mean of "
                             f"|results| is {result['mean_abs']}, not {own['mean_abs']}")
    order = [runner.language for runner in runners]
    return sorted(results.values(), key=lambda r: (r["pass"] != "forward", order.index(r["language"]), r["provider"] != "dlattn"))


def line(results: list[dict]) -> str:
    own = results[0]
    others = [f"{r['language'] if r['provider'] == 'dlattn' else r['provider']} {own['ms'] / r['ms']:.2f}" for r in results[1:]]
    return (f"{own['case']:38s} {own['pass']:8s} {own['ms']:9.4f} ms {own['gflops']:7.1f} GF/s {100 * own['gflops'] / own['peak_gflops']:3.0f} %   "
            + "  ".join(others))


def version_of(language: str) -> str:
    if language == "python":
        return platform.python_version()
    found = re.search(r"\d+\.\d+\.\d+", subprocess.run(VERSIONS[language], capture_output=True, text=True).stdout)
    return found.group() if found else ""


def main():
    options = read_options()
    path, cases = read_cases(options)
    runners, skipped = start_runners(options, path)
    print(f"{len(cases)} cases, {options.threads} threads, from {', '.join(runner.language for runner in runners)}. Times of C; the rate at "
          "which others reach it: 1.00 is C's")
    results = []
    for case in cases:
        found = time_case(case, runners, options.rounds, 0 if options.quick else 0.05)
        for which in ("forward", "backward"):
            if part := [r for r in found if r["pass"] == which]:
                print(line(part), flush=True)
        results += found
    for runner in runners:
        runner.end()
    languages = [runner.language for runner in runners]
    document = {"machine": machine(options.threads), "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "versions": {"dlattn": results[0]["version"], **{name: version_of(name) for name in languages if name != "c"}},
                "languages": languages, "skipped": skipped, "rounds": options.rounds, "budget": options.budget, "results": results}
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{summary(document)}\n\n{len(results)} results in {options.output}")


if __name__ == "__main__":
    main()
