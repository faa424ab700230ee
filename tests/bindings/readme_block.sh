#!/usr/bin/env bash
# Prints the code that README.md shows in a language, as it stands. usage: readme_block.sh c|python|julia|rust
set -euo pipefail
awk -v first="\`\`\`$1" '$0 == first { inside = found = 1; next } /^```/ { inside = 0 } inside { print } END { exit !found }' \
    "$(dirname "$0")/../../README.md"
