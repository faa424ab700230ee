#!/usr/bin/env python3
"""Fails on an #include that the house of the design does not allow: each room may include only what its row names.

A room is a folder (or files of one beginning); the longest match counts. Quoted includes are resolved to a file of the tree.
"""
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
PUBLIC = ["include/dlattn/"]
SHARED = ["kernels/shared/"]

# room: what it may include of the tree; "src/*" means files of src itself, not of its folders
ROOMS = {
    "include/dlattn/": PUBLIC,
    "src/": PUBLIC + SHARED + ["src/*"],
    "src/cpu/": PUBLIC + SHARED + ["src/*", "src/cpu/"],
    "src/cuda/": PUBLIC + SHARED + ["src/*", "src/cuda/"],
    "src/ring/": PUBLIC + ["src/*", "src/ring/"],
    "kernels/": ["kernels/"],
    "kernels/shared/": SHARED,
    "bindings/": PUBLIC + ["bindings/"],
    "tests/": PUBLIC + SHARED + ["src/*", "src/cpu/", "src/cuda/", "tests/"],
    "tests/oracle": PUBLIC + ["tests/oracle", "tests/tensor", "tests/element"],
    "tests/tensor": PUBLIC + ["tests/tensor", "tests/element"],
    "tests/element": PUBLIC + ["tests/element"],
    "tools/": PUBLIC + ["tools/", "tests/"],
    "bench/": PUBLIC + ["src/*", "src/cuda/", "bench/", "tests/", "tools/"],
    "examples/": PUBLIC,
}
SYSTEM_HEADERS = {  # angle includes of anything but the C library, and the rooms that may have them
    "dlpack/": ["include/dlattn/", "src/", "tests/", "tools/", "bench/", "bindings/", "examples/"],
    "dlattn/": ["tests/", "tools/", "bench/", "bindings/", "examples/", "src/"],
    "criterion/": ["tests/"],
    "ffi": ["tests/abi/", "bench/"],
    "cuda": ["tests/cuda/", "bench/"],
    "nvrtc": ["tests/cuda/"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
GENERATED = {"checks.h": "tests/simd/checks.h"}  # written by CMake
FOLDERS = ["include", "src", "src/cpu", "src/cuda", "kernels", "kernels/shared", "tests", "tools"]  # -I of the build


def room_of(path):
    rooms = [room for room in ROOMS if path.startswith(room)]
    return max(rooms, key=len) if rooms else None


def allowed(target, patterns):
    for pattern in patterns:
        if pattern.endswith("/*"):
            if str(pathlib.PurePosixPath(target).parent) == pattern[:-2]:
                return True
        elif target.startswith(pattern):
            return True
    return False


def resolve(path, name):
    """The file of the tree that `#include "name"` in `path` means, or None."""
    for folder in [str(pathlib.PurePosixPath(path).parent)] + FOLDERS:
        found = (TOP / folder / name).resolve()
        if found.is_file() and found.is_relative_to(TOP):
            return found.relative_to(TOP).as_posix()
    return None


def problems_of(path):
    room = room_of(path)
    if room is None:
        yield "lies in no room of the house (see ROOMS in .ci/arrows.py)"
        return
    for quote, name in INCLUDE.findall((TOP / path).read_text()):
        if quote == "<":
            for prefix, rooms in SYSTEM_HEADERS.items():
                if name.startswith(prefix) and not allowed(path, rooms):
                    yield f"<{name}> is not for {room}"
            if room.startswith("kernels/") and not room.startswith("kernels/shared/"):
                yield f"<{name}>: kernels are freestanding"
            continue
        target = GENERATED.get(name) or resolve(path, name)
        if target is None:
            yield f'"{name}" is no file of the tree'
        elif not allowed(target, ROOMS[room]):
            yield f'"{name}" is {target}: {room} may include only {", ".join(ROOMS[room])}'


def main():
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=TOP, check=True,
                             capture_output=True, text=True).stdout.split()
    sources = [p for p in listing if p.endswith((".c", ".h", ".cpp", ".cu", ".cuh")) and (TOP / p).is_file()]
    bad = [f"{path}: {problem}" for path in sources for problem in problems_of(path)]
    print("\n".join(bad) if bad else f"{len(sources)} files, every include is an arrow of the design")
    return 1 if bad or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
