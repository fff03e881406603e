#!/bin/bash
# Training gives the same bits, whatever runs it: 1, 2 and 4 ranks, 1, 2 and 4 threads, with recomputation or without, in
# one go or killed and started again. 20 real steps over 2.5 epochs of a small model, with dropout, evaluation and saving.
#
#   tests/same_bits/same_bits.sh ADAMEM float32|bfloat16
#
# So that equality means something, other seeds and the inexact reduction must differ, and the model must have learned.
# keep=1 leaves the runs behind.
set -euo pipefail
adamem=$1
dtype=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/same-bits-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v mpirun >/dev/null || { echo "skipped: mpirun is missing (apt-get install openmpi-bin)" && exit 77; }

# variant RANKS THREADS RUN [--set ...]
variant() {
    ranks=$1 threads=$2
    shift 2
    train "$@"
}

make_data
make_config
variant 1 1 reference

for shape in 1x2 1x4 2x1 4x1 2x2; do
    variant "${shape%x*}" "${shape#*x}" "shape-$shape"
    same "shape-$shape" reference "${shape%x*} ranks with ${shape#*x} threads each"
done
variant 1 1 recomputed --set training.gradient_checkpointing=full
same recomputed reference "activations recomputed"

# Where it is killed, ranks before, ranks after. An epoch has 8 steps.
kills=('1 1 2' '4 2 1' '8 4 4' '12 1 1')
for kill in "${kills[@]}"; do
    read -r step before after <<<"$kill"
    run=killed-$step-$before-$after
    ranks=$before threads=1
    killed "$step" "$run"
    variant "$after" 1 "$run"
    from=$(resumed_from "$run")
    [[ -n $from ]] || fail "$run did not continue"
    ((from >= step && from < steps)) || fail "$run continued from step $from, not between $step and $steps"
    same "$run" reference "killed after step $step on $before ranks, continued from step $from on $after"
done

variant 1 1 seed --set run.seed=8
different seed reference "another seed"
variant 1 1 no-dropout --set lora.lora_dropout=0
different no-dropout reference "no dropout"
variant 1 1 float --set training.reduction=float
different float reference 'reduction = "float"'

found=$(grep -o '"epoch": [0-9.]*' "$scratch/reference/metrics.jsonl" | tail -n 1)
[[ $found == '"epoch": 2.5' ]] || fail "20 steps, 8 to an epoch, should end at epoch 2.5, found $found"

loss_before=$(cd "$scratch" && "$adamem" evaluate --config run.cfg 2>/dev/null | grep -o '"loss": [0-9.]*')
loss_after=$(grep -o '"eval_loss": [0-9.]*' "$scratch/reference/metrics.jsonl" | tail -n 1)
awk -v before="${loss_before#*: }" -v after="${loss_after#*: }" 'BEGIN {
    printf "held-out loss: %.3f before, %.3f after %d steps\n", before, after, '$steps'
    exit !(after > 0 && before - after >= 0.1)
}' || fail "the held-out loss fell by less than 0.1 nats"
