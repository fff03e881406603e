#!/bin/bash
# Generation on the CPU against Transformers: the same random model, prompts and number of threads, both in turn, medians.
#   run.sh ADAMEM PYTHON [WORK_FOLDER] [THREADS]
# A model of Qwen2.5-0.5B's width with 8 layers: its weights are far larger than any cache.
set -euo pipefail
adamem=$1 python=$2 work=${3:-$(mktemp -d)} threads=${4:-$(nproc)}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$work"
[[ -d $work/model ]] || "$adamem" init-model --preset qwen2.5-0.5b --output "$work/model" --seed 1 --set num_hidden_layers=8 \
    --set vocab_size=32000 --set eos_token_id=0 --set initializer_range=0.1
OMP_NUM_THREADS=$threads "$python" "$here/compare.py" --adamem "$adamem" --work "$work" --threads "$threads"
