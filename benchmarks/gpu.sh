#!/usr/bin/env bash
# What one GPU does, in at most 8 minutes: one table, the same as JSON, and the tests that need a GPU.
# bash benchmarks/gpu.sh [--toy] [folder for data and results]    (--toy: at its smallest, on any machine)
set -euo pipefail
toy=()
if [ "${1:-}" = --toy ]; then toy=(--toy); shift; fi
folder=$(realpath -m "${1:-runs/gpu}")
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python benchmarks/gpu.py "$folder/gpu.json" "${toy[@]}"
[ -n "${toy[*]}" ] || timeout 60 python -m pytest -q -m gpu
