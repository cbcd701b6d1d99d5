#!/usr/bin/env bash
# The first run on a fresh machine: sets up .venv, then simulates Llama-3.1-8B on one RTX 3090 serving the
# shipped sample of 100 requests. Flags given here are added, and win over the example's.
set -euo pipefail
cd "$(dirname "$0")"
./setup.sh
exec "${ORRERY_VENV:-.venv}/bin/python" main.py \
    --model_name meta-llama/Llama-3.1-8B-Instruct --hardware RTX3090 --npu_num 1 --npu_group 1 \
    --dataset workloads/sharegpt-like-100-rate10.tsv --output output/example_run.csv "$@"
