#!/usr/bin/env bash
# Everything that can only be measured on a GPU, in one command (benchmarks/gpu.py says what and how).
#   scripts/gpu.sh OUT [piece ...]
set -euo pipefail
export GPU_FROM="$PWD"
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
