"""Parses dlattn.h into abi.json and writes, from that manifest, every raw layer that is checked in.

    python bindings/manifest.py            writes the files below
    python bindings/manifest.py --check    compares them with what would be written; status 1 when one is stale

The C preprocessor of the machine expands the header, pycparser parses it. Struct offsets are computed by the rules of
the 64-bit C ABIs (each field at a multiple of its size); tests/abi compares them with the compiler's offsetof.
"""
from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from pycparser import c_ast, c_parser

import emit
import emit_julia
import emit_rust

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "int64_t": 8,
         "uint64_t": 8, "float": 4, "double": 8}

# What bindings need of dlpack.h. A list, so that the manifest does not depend on which DLPack 1.x is installed.
DLPACK_STRUCTS = ["DLPackVersion", "DLDevice", "DLDataType", "DLTensor", "DLManagedTensor", "DLManagedTensorVersioned"]
DLPACK_ENUMERATORS = ["kDLCPU", "kDLCUDA", "kDLCUDAHost", "kDLCUDAManaged", "kDLInt", "kDLUInt", "kDLFloat",
                      "kDLBfloat", "kDLBool"]
DLPACK_MACROS = ["DLPACK_MAJOR_VERSION", "DLPACK_FLAG_BITMASK_READ_ONLY", "DLPACK_FLAG_BITMASK_IS_COPIED"]


def dlpack_include() -> list[str]:
    """Folders to search for dlpack/dlpack.h before the compiler's own."""
    given = os.environ.get("DLATTN_DLPACK_INCLUDE_DIR")
    if given:
        return [given]
    package = importlib.util.find_spec("tvm_ffi")
    if package is None:
        return []
    root = Path(package.submodule_search_locations[0])
    return [str(path) for path in (root / "include", root / "3rdparty/dlpack/include")
            if (path / "dlpack/dlpack.h").exists()][:1]


def preprocess(include: list[str], *options: str) -> str:
    """dlattn.h through the machine's preprocessor, with GNU extensions that pycparser does not know defined away."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    hidden = ["-D__attribute__(x)=", "-D__extension__=", "-D__inline=", "-D__restrict=", "-D__asm__(x)="]
    folders = [f"-I{folder}" for folder in [str(ROOT / "include"), *include]]
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write("#include <dlattn/dlattn.h>\n")
        source.flush()
        command = [*compiler, "-E", *options, *hidden, *folders, source.name]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def spelling(node: c_ast.Node) -> str:
    """A type as canonical C text: "const DLTensor *", "int64_t", "void (*)(DLManagedTensor *)"."""
    if isinstance(node, (c_ast.TypeDecl, c_ast.Typename, c_ast.Decl)):
        text = spelling(node.type)
        return " ".join([*getattr(node, "quals", []), text]) if isinstance(node, c_ast.TypeDecl) else text
    if isinstance(node, c_ast.IdentifierType):
        return " ".join(node.names)
    if isinstance(node, c_ast.Struct):
        return node.name
    if isinstance(node, c_ast.PtrDecl):
        if isinstance(node.type, c_ast.FuncDecl):
            arguments = ", ".join(spelling(argument.type) for argument in node.type.args.params)
            return f"{spelling(node.type.type)} (*)({arguments})"
        inner = spelling(node.type)
        return f"{inner}{'' if inner.endswith('*') else ' '}*{''.join(node.quals)}"
    raise SystemExit(f"manifest: {type(node).__name__} has no place in a public header ({node.coord})")


def evaluate(node: c_ast.Node, known: dict[str, int]) -> int:
    """The value of an enumerator's expression."""
    if isinstance(node, c_ast.Constant):
        return int(node.value.rstrip("uUlL"), 0)
    if isinstance(node, c_ast.ID):
        return known[node.name]
    if isinstance(node, c_ast.UnaryOp) and node.op == "-":
        return -evaluate(node.expr, known)
    if isinstance(node, c_ast.BinaryOp) and node.op in ("|", "+", "<<"):
        left, right = evaluate(node.left, known), evaluate(node.right, known)
        return {"|": left | right, "+": left + right, "<<": left << right}[node.op]
    raise SystemExit(f"manifest: enumerator expression {type(node).__name__} is not understood ({node.coord})")


class Header:
    """Everything the header declares, by name, in its order."""

    def __init__(self, text: str):
        self.structs: dict[str, c_ast.Struct] = {}
        self.enums: set[str] = set()
        self.enumerators: dict[str, int] = {}
        self.functions: dict[str, c_ast.FuncDecl] = {}
        for item in c_parser.CParser().parse(text, "dlattn.h").ext:
            kind = item.type
            if isinstance(kind, c_ast.FuncDecl):
                self.functions[item.name] = kind
            inner = kind.type if isinstance(kind, c_ast.TypeDecl) else kind
            if isinstance(inner, c_ast.Struct) and inner.decls:
                self.structs[item.name or inner.name] = inner
            if isinstance(inner, c_ast.Enum) and inner.values:
                self.add_enum(item.name or inner.name, inner)

    def add_enum(self, name: str | None, node: c_ast.Enum) -> None:
        if name:
            self.enums.add(name)
        value = -1
        for item in node.values.enumerators:
            value = evaluate(item.value, self.enumerators) if item.value else value + 1
            self.enumerators[item.name] = value

    def layout(self, kind: str) -> tuple[int, int]:
        """Size and alignment of a type, as the 64-bit ABIs have it."""
        if kind.endswith("*") or "(*)" in kind:
            return 8, 8
        if kind in self.enums:
            return 4, 4
        if kind in SIZES:
            return SIZES[kind], SIZES[kind]
        fields = self.fields(kind)
        alignment = max(self.layout(field["type"])[1] for field in fields)
        end = fields[-1]["offset"] + fields[-1]["size"]
        return -(-end // alignment) * alignment, alignment

    def fields(self, name: str) -> list[dict]:
        offset, result = 0, []
        for field in self.structs[name].decls:
            kind = spelling(field.type)
            size, alignment = self.layout(kind)
            offset = -(-offset // alignment) * alignment
            result.append({"name": field.name, "type": kind, "offset": offset, "size": size})
            offset += size
        return result

    def struct(self, name: str) -> dict:
        return {"name": name, "size": self.layout(name)[0], "fields": self.fields(name)}

    def function(self, name: str) -> dict:
        node = self.functions[name]
        arguments = [{"name": argument.name, "type": spelling(argument.type)} for argument in node.args.params
                     if spelling(argument.type) != "void"]
        return {"name": name, "returns": spelling(node.type), "arguments": arguments}


def macros(text: str) -> dict[str, int]:
    """Object-like macros with a plain integer value, from the output of cc -E -dM."""
    found = re.findall(r"^#define (DLATTN_\w+|DLPACK_\w+) (.+)$", text, re.M)
    result = {}
    for name, value in found:
        shift = re.fullmatch(r"\((\d+)UL << (\d+)UL\)", value)
        if shift:
            result[name] = int(shift[1]) << int(shift[2])
        elif re.fullmatch(r"\d+", value):
            result[name] = int(value)
    return result


def manifest() -> dict:
    include = dlpack_include()
    header = Header(preprocess(include, "-P"))
    values = macros(preprocess(include, "-dM"))
    constants = {name: value for name, value in values.items() if name.startswith("DLATTN_")}
    constants = dict(sorted(constants.items()))
    constants.update((name, value) for name, value in header.enumerators.items() if name.startswith("DLATTN_"))
    return {
        "about": "The ABI of dlattn.h, written by bindings/manifest.py. Do not edit.",
        "constants": constants,
        "structs": [header.struct(name) for name in header.structs if name.startswith("dlattn_")],
        "functions": [header.function(name) for name in header.functions if name.startswith("dlattn_")],
        "dlpack": {
            "constants": {**{name: values[name] for name in DLPACK_MACROS},
                          **{name: header.enumerators[name] for name in DLPACK_ENUMERATORS}},
            "structs": [header.struct(name) for name in DLPACK_STRUCTS],
            "enums": sorted(header.enums & {"DLDeviceType"}),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    arguments = parser.parse_args()
    abi = manifest()
    outputs = {
        ROOT / "bindings/abi.json": json.dumps(abi, indent=1) + "\n",
        ROOT / "bindings/python/src/dlattn/_raw.py": emit.python(abi),
        ROOT / "tests/abi/manifest.h": emit.c_table(abi),
        ROOT / "bindings/julia/DLAttn/src/raw.jl": emit_julia.julia(abi),
        ROOT / "bindings/rust/dlattn-sys/src/raw.rs": emit_rust.rust(abi),
    }
    stale = 0
    for path, text in outputs.items():
        old = path.read_text() if path.exists() else ""
        if arguments.check and old != text:
            name = str(path.relative_to(ROOT))
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), name, "header"))
            print(f"{name} is stale: run python bindings/manifest.py", file=sys.stderr)
            stale = 1
        elif not arguments.check:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main())
