"""The training example in JAX learns; its exit code compares the held-out loss with the entropy of the characters."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="jax is not installed")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/python/train_jax.py"


def test_the_example_learns():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, EXAMPLE, "--steps", "40"], env=environment, capture_output=True, text=True)
    first, last = (float(done.stdout.partition(mark)[2].split()[0]) for mark in ("step    1", "held out"))
    assert done.returncode == 0 and last < first / 2
