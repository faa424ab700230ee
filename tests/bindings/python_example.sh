#!/usr/bin/env bash
# Python's example prints what C's does. usage: python_example.sh <interpreter> <C's example>
set -euo pipefail
cd "$(dirname "$0")/../.."
diff <("$2") <("$1" examples/python/attention.py)
