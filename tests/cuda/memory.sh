#!/bin/bash
# The plan's memory against what a GPU was seen to hold, within 5 %: a bench of random weights and tokens. One line, of which
# tests/gpu.sh makes a row.
#
#   tests/cuda/memory.sh ADAMEM PRESET TOKENS    e.g. qwen2.5-0.5b 2048; tests/cuda_on_host runs it with tiny 64
#
# The figure is what was free before less what is free after: other processes on the GPU would spoil it.
set -euo pipefail
adamem=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
preset=$2
tokens=$3
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cuda-memory-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
"$adamem" init-model --preset "$preset" --output whole >/dev/null 2>&1
mkdir model && cp whole/config.json model/ && rm -r whole # without weights: bench makes its own
cat >run.cfg <<CONFIG
run = { backend = "cuda"; output_dir = "run"; };
model = { path = "model"; dtype = "bfloat16"; };
lora = { r = 16; lora_alpha = 32; target_modules = [ "all-linear" ]; };
data = { max_length = $tokens; };
training = { per_device_train_batch_size = 2; global_batch_size = 4; };
CONFIG
"$adamem" bench --config run.cfg --steps 2 >bench.json 2>bench.log || { echo "row: memory as planned: FAIL: $(grep -m1 rror bench.log)" && exit 1; }
value() { grep -o "\"$1\": [0-9]*" bench.json | cut -d' ' -f2; }
awk -v plan="$(value planned_bytes)" -v peak="$(value device_peak_bytes)" 'BEGIN {
    share = (plan > 0 && peak > 0) ? (plan - peak) / peak : 1
    good = share >= -0.05 && share <= 0.05
    printf "row: memory as planned: %s: planned %.3f GB, measured %.3f GB, %+.1f %%, at most 5 %%\n", good ? "PASS" : "FAIL", plan / 1e9,
        peak / 1e9, 100 * share
    exit !good
}'
