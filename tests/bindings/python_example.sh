#!/usr/bin/env bash
# README.md's lines of Python run, and Python's example prints what C's does. usage: python_example.sh <interpreter> <C's example>
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$("$1" <(tests/bindings/readme_block.sh python))" = "(2, 1024, 8, 64) (2, 1024, 2, 64) (2, 1024, 2, 64)" ]
diff <("$2") <("$1" examples/python/attention.py)
