"""What is generated from the header is up to date, and the package agrees with the library it loaded."""
import ctypes
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import dlattn
import pytest
from dlattn import _library, _raw

ROOT = Path(__file__).resolve().parents[2]
ABI = json.loads((ROOT / "bindings/abi.json").read_text())


def test_generated_files_are_not_stale():
    result = subprocess.run([sys.executable, ROOT / "bindings/manifest.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("new", ["int64_t num_threads;", "int32_t num_threads, reserved0;\n    int64_t added;"])
def test_a_stale_file_is_noticed(new, tmp_path):
    generated = ("bindings/abi.json", "bindings/python/src/dlattn/_raw.py", "tests/abi/manifest.h",
                 "bindings/julia/DLAttn/src/raw.jl", "bindings/rust/dlattn-sys/src/raw.rs")
    for part in ("bindings/manifest.py", "bindings/emit.py", "bindings/emit_julia.py", "bindings/emit_rust.py",
                 "include/dlattn/dlattn.h", *generated):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((ROOT / part).read_text())
    header = tmp_path / "include/dlattn/dlattn.h"
    header.write_text(header.read_text().replace("int32_t num_threads, reserved0;", new))
    result = subprocess.run([sys.executable, tmp_path / "bindings/manifest.py", "--check"], capture_output=True,
                            text=True)
    assert result.returncode == 1
    assert all(f"{name} is stale" in result.stderr for name in generated)


def test_every_exported_function_is_in_the_manifest():
    header = (ROOT / "include/dlattn/dlattn.h").read_text()
    declared = re.findall(r"^DLATTN_API .*?(dlattn_\w+)\(", header, re.M)
    assert [function["name"] for function in ABI["functions"]] == declared
    assert list(_raw.FUNCTIONS) == declared
    assert all(hasattr(_library.library, name) for name in declared)


def test_ctypes_lays_the_structs_out_as_the_manifest_says():
    for struct in ABI["structs"] + ABI["dlpack"]["structs"]:
        kind = getattr(_raw, struct["name"])
        assert ctypes.sizeof(kind) == struct["size"], struct["name"]
        for field in struct["fields"]:
            found = getattr(kind, field["name"])
            assert (found.offset, found.size) == (field["offset"], field["size"]), (struct["name"], field["name"])


def test_the_library_has_the_header_s_version():
    major, minor, patch = (ABI["constants"][f"DLATTN_VERSION_{part}"] for part in ("MAJOR", "MINOR", "PATCH"))
    assert dlattn.version() == dlattn.__version__ == f"{major}.{minor}.{patch}"
    assert dlattn.abi_version() == ABI["constants"]["DLATTN_ABI_VERSION"]


def test_help_shows_every_option():
    for function in (dlattn.attention, dlattn.attention_backward, dlattn.dropout_mask, dlattn.explain, dlattn.prepare):
        parameters = inspect.signature(function).parameters
        assert set(dlattn.Options.__annotations__) < set(parameters)
        assert function.__doc__


def test_a_library_that_cannot_be_used_is_named(tmp_path):
    command = [sys.executable, "-c", "import dlattn"]
    environment = {"PYTHONPATH": str(ROOT / "bindings/python/src"), "DLATTN_LIBRARY": str(tmp_path / "missing.so")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode and "missing.so" in result.stderr and "DLATTN_LIBRARY" in result.stderr
