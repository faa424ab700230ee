#!/usr/bin/env python3
"""Fails on what every file of the tree must have: a purpose in its first line, a bounded size, tidy whitespace."""
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
C_FILES = (".c", ".h", ".cpp", ".cu", ".cuh")
CODE = C_FILES + (".py", ".sh", ".cmake", ".jl", ".rs")
MOST_LINES = 800
MOST_COLUMNS = 140  # 120 is the aim; tables may be wider


def problems_of(path, text):
    lines = text.split("\n")
    if re.search("[Gg]enerated (by|from)", "\n".join(lines[:5])):
        return
    if text and not text.endswith("\n"):
        yield "does not end with a newline"
    if path.endswith(CODE):
        first = "\n".join(lines[:3])
        if not re.search(r'/\*|//|#|"""', first):
            yield "its first lines do not say what it is for"
        if len(lines) > MOST_LINES:
            yield f"has {len(lines)} lines, more than {MOST_LINES}"
    for number, line in enumerate(lines, 1):
        if path.endswith(CODE) and line != line.rstrip():
            yield f"line {number} ends with blanks"
        if path.endswith(C_FILES) and len(line) > MOST_COLUMNS:
            yield f"line {number} has {len(line)} columns, more than {MOST_COLUMNS}"
        if path.endswith(CODE) and "\t" in line:
            yield f"line {number} has a tab"


def main():
    listing = subprocess.run(["git", "ls-files"], cwd=TOP, check=True, capture_output=True, text=True).stdout.split()
    texts = [path for path in listing if path.endswith(CODE + (".md", ".txt", ".json", ".toml", ".in"))]
    bad = [f"{path}: {problem}" for path in texts if (TOP / path).is_file()
           for problem in problems_of(path, (TOP / path).read_text())]
    print("\n".join(bad) if bad else f"{len(texts)} files in order")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
