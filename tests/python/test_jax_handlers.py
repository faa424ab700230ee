"""The XLA handlers themselves: the layouts they assume, what they answer about themselves, programs they do not know."""
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from dlattn.jax import _handlers
from jax_programs import on_the_cpu

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "bindings/python/native"

# ours: XLA's, of which both have these fields
LAYOUTS = {
    "xla_frame": ("XLA_FFI_CallFrame", {"api": "api", "context": "ctx", "stage": "stage", "arguments": "args",
                                        "results": "rets", "attributes": "attrs"}),
    "xla_buffers": ("XLA_FFI_Args", {"count": "size", "types": "types", "items": "args"}),
    "xla_buffer": ("XLA_FFI_Buffer", {"dtype": "dtype", "data": "data", "rank": "rank", "dims": "dims"}),
    "xla_attributes": ("XLA_FFI_Attrs", {"count": "size", "types": "types", "names": "names", "values": "attrs"}),
    "xla_scalar": ("XLA_FFI_Scalar", {"dtype": "dtype", "value": "value"}),
    "xla_bytes": ("XLA_FFI_ByteSpan", {"data": "ptr", "size": "len"}),
    "xla_error_arguments": ("XLA_FFI_Error_Create_Args", {"message": "message", "code": "errc"}),
    "xla_stream_arguments": ("XLA_FFI_Stream_Get_Args", {"context": "ctx", "stream": "stream"}),
    "xla_metadata": ("XLA_FFI_Metadata", {"version": "api_version", "traits": "traits"}),
    "xla_metadata_extension": ("XLA_FFI_Metadata_Extension", {"metadata": "metadata"}),
    "xla_version": ("XLA_FFI_Api_Version", {"major": "major_version", "minor": "minor_version"}),
    "xla_api": ("XLA_FFI_Api", {"error_create": "XLA_FFI_Error_Create", "stream_get": "XLA_FFI_Stream_Get"}),
}
TYPES = ["PRED", "S8", "S16", "S32", "S64", "U8", "U16", "U32", "U64", "F16", "F32", "F64", "BF16"]
CODES = ["UNKNOWN", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INTERNAL"]


def test_the_layouts_are_those_of_the_installed_jaxlib(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "no C compiler"
    claims = [f"offsetof({ours}, {field}) == offsetof({theirs}, {name})" for ours, (theirs, fields) in LAYOUTS.items()
              for field, name in fields.items()]
    claims += [f"(int)XLA_{name} == (int)XLA_FFI_DataType_{name}" for name in TYPES]
    claims += [f"(int)XLA_{name} == (int)XLA_FFI_Error_Code_{name}" for name in CODES]
    claims += [f"(int)XLA_{name} == (int)XLA_FFI_AttrType_{name}" for name in ("ARRAY", "DICTIONARY", "SCALAR", "STRING")]
    claims += ["(int)XLA_EXTENSION_METADATA == (int)XLA_FFI_Extension_Metadata",
               "(int)XLA_COMMAND_BUFFER_COMPATIBLE == (int)XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE",
               "XLA_API_MAJOR == XLA_FFI_API_MAJOR && XLA_API_MINOR <= XLA_FFI_API_MINOR"]
    source = tmp_path / "layouts.c"

    def compiles(claims):
        lines = ['#include "xla_abi.h"', "#include <xla/ffi/api/c_api.h>"]
        source.write_text("\n".join([*lines, *(f'_Static_assert({claim}, "differs");' for claim in claims), ""]))
        return subprocess.run([compiler, "-std=gnu11", "-fsyntax-only", f"-I{NATIVE}", f"-I{jax.ffi.include_dir()}", source],
                              capture_output=True, text=True)

    done = compiles(claims)
    assert done.returncode == 0, done.stderr
    assert compiles(["offsetof(xla_frame, results) == offsetof(XLA_FFI_CallFrame, args)"]).returncode != 0


class Extension(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("type", ctypes.c_int32), ("next", ctypes.c_void_p), ("metadata", ctypes.c_void_p)]


class Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version_size", ctypes.c_size_t), ("extensions", ctypes.c_void_p),
                ("major", ctypes.c_int32), ("minor", ctypes.c_int32), ("traits", ctypes.c_uint32), ("guard", ctypes.c_uint32)]


@pytest.mark.parametrize("name, traits", [
    ("forward_cpu", 0), ("backward_cpu", 0), ("forward_cuda", 1), ("backward_cuda", 1), ("prepare_forward_cuda", 1),
    ("prepare_backward_cuda", 1)])
def test_a_handler_reports_version_0_1_and_its_traits(name, traits):
    """Behind an extension that it does not know, without an api, and into no more than the old, smaller struct."""
    handler = _handlers._load()[f"dlattn_xla_{name}"]
    handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    metadata = Metadata(size=36, major=9, minor=9, traits=9, guard=77)
    known = Extension(32, 1, None, ctypes.addressof(metadata))
    unknown = Extension(24, 1234, ctypes.addressof(known), None)
    frame = (ctypes.c_uint64 * 21)(168, ctypes.addressof(unknown))
    assert handler(frame) is None
    assert (metadata.major, metadata.minor, metadata.traits, metadata.guard) == (0, 1, traits, 77)


def call(attributes, arguments="q k v", results="out lse", shape=(1, 4, 2, 8), dtype=np.float32, target=_handlers.FORWARD):
    q = np.ones(shape, dtype)
    types = [jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((1, 2, 4), np.float32)]
    program = jax.jit(lambda q: jax.ffi.ffi_call(target, types)(q, q, q, arguments=arguments, results=results, **attributes))
    return [np.asarray(x) for x in program(q)]


def test_a_call_by_hand():
    out, lse = call({"scale": np.float32(0.0), "flags": np.int32(32), "num_threads": 1})
    assert (out == 1).all() and np.allclose(lse, np.log(4), rtol=2.0**-22)


@pytest.mark.parametrize("change, match", [
    (dict(attributes={"colour": 1}), "an attribute 'colour'"),
    (dict(attributes={"flags": 1.5}), "an attribute 'flags'"),
    (dict(attributes={"scale": 1}), "an attribute 'scale'"),
    (dict(attributes={"flags": 2**40}), "an attribute 'flags'"),
    (dict(attributes={"seed": np.array([1, 2])}), "an attribute 'seed'"),
    (dict(arguments="q k w"), "a buffer 'w'"),
    (dict(arguments="q k"), "a buffer ''"),
    (dict(arguments="q k dq"), "a buffer 'dq'"),
    (dict(results="out dq"), "a buffer 'dq'"),
    (dict(results=""), "a buffer ''"),
    (dict(dtype=np.complex64), "a buffer of an odd type 'q'"),
    (dict(arguments="q k bias"), "v is NULL"),
    (dict(attributes={"flags": 1 << 20}), "UNIMPLEMENTED.*flag"),
])
def test_programs_it_does_not_know_are_errors(change, match):
    with pytest.raises(jax.errors.JaxRuntimeError, match=match):
        call(**{"attributes": {}, **change})


def test_a_wrong_path_is_an_import_error_with_advice():
    environment = {**os.environ, "DLATTN_XLA_LIBRARY": "/nowhere/libdlattn_xla.so",
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", "import dlattn.jax"], env=environment, capture_output=True, text=True)
    assert done.returncode and "cannot load /nowhere/libdlattn_xla.so" in done.stderr and "DLATTN_XLA_LIBRARY" in done.stderr


def test_importing_dlattn_imports_no_jax():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", "import sys, dlattn; sys.exit('jax' in sys.modules)"], env=environment)
    assert done.returncode == 0
