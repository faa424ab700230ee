"""The package as users get it: sdist from the tree, wheel from the sdist's archive, used in a fresh environment."""
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USE = """
import dlattn, numpy as np, pathlib
assert "site-packages" in dlattn.__file__, dlattn.__file__
q = np.eye(4, dtype="float32").reshape(1, 4, 1, 4)
out, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
assert np.allclose(out[0, 0, 0], q[0, 0, 0]) and np.allclose(lse[0, 0, 0], 0.5)
assert dlattn.attention_backward(q, q, q, q, out, lse, causal=True).dq.shape == q.shape
assert "backend: cuda" in dlattn.explain()
assert b"forward_sm80" in pathlib.Path(dlattn._library.library._name).read_bytes(), "the kernels travel in the library"
print(dlattn.version())
"""


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DLATTN_LIBRARY")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    result = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.mark.slow
def test_the_wheel_is_built_from_the_archive_and_works(tmp_path):
    run(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT / "bindings/python")
    (archive,) = tmp_path.glob("dlattn-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "unpacked")
    assert any(name.endswith("source/include/dlattn/dlattn.h") for name in names)
    assert not any(name.endswith((".o", ".so", ".pyc")) for name in names)
    (source,) = (tmp_path / "unpacked").iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name and "-any" not in wheel.name
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {"dlattn/libdlattn.so", "dlattn/libdlattn_xla.so", "dlattn/_raw.py", "dlattn/py.typed"} <= files
    assert not any(name.startswith(("include", "lib", "bin")) for name in files)

    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh/bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert run(python, "-c", USE, cwd=tmp_path).strip()


@pytest.mark.slow
def test_pip_installs_the_folder_of_the_repository(tmp_path):
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh/bin/python"
    # without optimisation: this is about what is built and where it goes, and takes a fifth of the time
    run(python, "-m", "pip", "install", "--quiet", "--config-settings=cmake.build-type=Debug", ROOT / "bindings/python")
    assert run(python, "-c", USE, cwd=tmp_path).strip()
