"""bench/results/sweep_h100.json: its judgement is what its times say, and a file that says otherwise is noticed."""
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
FILE = TOP / "bench" / "results" / "sweep_h100.json"
PROGRAM = Path(os.environ["DLATTN_BUILD"]) / "sweep_choices"
sys.path.insert(0, str(TOP / "bench"))
import sweep  # noqa: E402


def test_judgement_follows_from_the_times():
    document = json.loads(FILE.read_text())
    said, within, worst = document["judgement"], 0, 0.0
    for result in document["results"]:
        best = min(result["us"].values())
        assert len(result["us"]) >= 2 and best > 0
        value = result["us"][result["chosen"]] / best
        assert value == pytest.approx(result["loss"], abs=1e-3)
        within += value <= 1.05
        worst = max(worst, value)
    assert (said["shapes"], said["within"], said["allowed_loss"], said["wanted_share"]) == (len(document["results"]), within, 1.05, 0.95)
    assert said["shapes"] == 200 and within >= 190
    assert said["worst"] == pytest.approx(worst, abs=1e-3)
    assert sweep.judge(document) == said and sweep.print_judgement(document)


def run(path):
    return subprocess.run([PROGRAM, path], capture_output=True, text=True)


def test_the_library_still_chooses_so():
    found = run(FILE)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("what", ["choice", "judgement", "share"])
def test_a_file_that_says_otherwise_is_noticed(tmp_path, what):
    text, other = FILE.read_text(), tmp_path / "sweep.json"
    if what == "choice":
        first = json.loads(text)["results"][0]
        wrong = next(name for name in first["us"] if name != first["chosen"])
        text = text.replace(f'"chosen": "{first["chosen"]}"', f'"chosen": "{wrong}"', 1)
    elif what == "judgement":
        text = re.sub(r'"within": \d+', '"within": 200', text, count=1)
    else:
        text = re.sub(r'"wanted_share": [\d.]+', '"wanted_share": 1.5', text, count=1)
    other.write_text(text)
    assert text != FILE.read_text()
    assert run(other).returncode == 1


def test_choosing_anew_changes_nothing_else(tmp_path):
    other = tmp_path / "sweep.json"
    other.write_text(re.sub(r'"chosen": "[^"]*", "loss": [\d.]*', '"chosen": "nothing", "loss": 9.999', FILE.read_text()))
    assert math.isinf(sweep.judge(json.loads(other.read_text()))["worst"])
    sweep.choose(other, str(PROGRAM))
    assert json.loads(other.read_text()) == json.loads(FILE.read_text())
