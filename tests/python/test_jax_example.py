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

    def bits(steps):
        done = subprocess.run([sys.executable, EXAMPLE, "--steps", str(steps)], env=environment, capture_output=True, text=True)
        return done.returncode, float(done.stdout.rpartition("held out ")[2].split()[0])

    code, untrained = bits(0)
    assert code == 1
    code, trained = bits(40)
    assert code == 0 and trained < untrained
