#!/bin/bash
# What checkpoints cost a training run on the CPU (promise R10): how long a save holds up training, as a share of the step time at
# an interval of 50 steps, and how much slower the steps are beside which the file is written.
#
#   tests/bench/checkpoint/run.sh ADAMEM [--preset NAME=qwen2.5-0.5b] [--tokens N=256] [--steps N=16] [--every N=4]
#
# LoRA r = 16 on all seven projections. Prints a line of medians and fails when the share is above 1 %.
set -euo pipefail
adamem=$(realpath "$1")
shift
preset=qwen2.5-0.5b tokens=256 steps=16 every=4 interval=50
while (($#)); do
    case $1 in
    --preset) preset=$2 ;;
    --tokens) tokens=$2 ;;
    --steps) steps=$2 ;;
    --every) every=$2 ;;
    *) echo "run.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
work=$(mktemp -d "${TMPDIR:-/tmp}/bench-checkpoint-XXXXXX")
trap 'rm -rf "$work"' EXIT

"$adamem" init-model --preset "$preset" --seed 42 --output "$work/model" >&2
awk -v tokens="$tokens" 'BEGIN {
    for (i = 0; i < 8; ++i) {
        ids = ""
        for (j = 0; j < tokens; ++j) ids = ids (j ? "," : "") (i * 31 + j * j * 7) % 96 + 32
        printf "{\"input_ids\":[%s],\"labels\":[%s]}\n", ids, ids
    }
}' >"$work/data.jsonl"
cat >"$work/run.cfg" <<CONFIG
run = { output_dir = "$work/run"; backend = "cpu"; };
model = { path = "$work/model"; dtype = "bfloat16"; };
lora = { r = 16; lora_alpha = 32; target_modules = [ "all-linear" ]; };
data = { train = ( { path = "$work/data.jsonl"; format = "tokens"; } ); };
training = { max_steps = $steps; per_device_train_batch_size = 1; global_batch_size = 1; logging_steps = 1;
             save_steps = $every; save_total_limit = 2; };
CONFIG
"$adamem" train --config "$work/run.cfg" >&2

median() { sort -g | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

# Lines "STEP STEP_SECONDS CHECKPOINT_SECONDS"; a save after step N holds up what step N+1 reports. The first step warms up.
sed -nE 's/.*"step": ([0-9]+),.*"step_seconds": ([0-9.e-]+),.*"checkpoint_seconds": ([0-9.e-]+).*/\1 \2 \3/p' \
    "$work/run/metrics.jsonl" >"$work/lines"
stall=$(awk '$3 > 0 { print $3 }' "$work/lines" | median)
plain=$(awk '$1 > 1 && $3 == 0 { print $2 }' "$work/lines" | median)
beside=$(awk '$3 > 0 { print $2 }' "$work/lines" | median)
bytes=$(stat -c %s "$work/run/checkpoint-$steps.h5")
awk -v stall="$stall" -v plain="$plain" -v beside="$beside" -v bytes="$bytes" -v interval=$interval -v preset="$preset" 'BEGIN {
    share = stall / (interval * plain)
    lost = (stall + (beside > plain ? beside - plain : 0)) / (interval * plain)
    printf "%s: checkpoint %.1f MB, stall %.2f ms, step %.1f ms (%.1f ms beside the writer): stall %.4f %%, with the slower step %.4f %% of the time at a save every %d steps\n",
        preset, bytes / 1e6, stall * 1e3, plain * 1e3, beside * 1e3, share * 100, lost * 100, interval
    exit !(share <= 0.01)
}'
