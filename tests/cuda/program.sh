#!/bin/bash
# The whole program on a GPU: against the CPU backend, and bit for bit against itself. One line per comparison; tests/gpu.sh makes a
# row of each.
#
#   tests/cuda/program.sh ADAMEM float32|bfloat16
#
# Two ranks share the first GPU, so that their sums pass through host memory. keep=1 leaves the runs behind.
set -euo pipefail
adamem=$1
dtype=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cuda-program-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../same_bits/common.sh"
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES%%,*}

make_data
make_config
sed -i -e 's/logging_steps = 3/logging_steps = 1/' "$scratch/run.cfg"
on_gpu() { train "$@" --set run.backend=cuda; }
failed=0

# compared NAME COMMAND...: the command prints what it found and ends with 0 where it is right.
compared() {
    local name=$1 found
    shift
    if found=$("$@" 2>&1); then
        echo "row: $name: PASS: $(tail -n 1 <<<"$found")"
    else
        echo "row: $name: FAIL: $(tail -n 1 <<<"$found")"
        failed=1
    fi
}

numbers() { grep -o "\"$2\": [-0-9.e]*" "$scratch/$1/metrics.jsonl" | cut -d' ' -f2; }

# close KEY LIMIT: relative differences between the backends, of the first three steps, before they grow apart by training
close() {
    paste <(numbers cpu "$1" | head -n 3) <(numbers reference "$1" | head -n 3) | awk -v limit="$2" '
        { d = ($1 - $2) / $1; d = d < 0 ? -d : d; if (d > most) most = d }
        END { printf "at most %.2g of %g apart\n", most, limit; exit !(NR >= 1 && most <= limit) }'
}

train cpu --set run.backend=cpu
on_gpu reference
on_gpu repeated
on_gpu recomputed --set training.gradient_checkpointing=full
if [[ $dtype == float32 ]]; then
    compared "loss of the CPU backend" close loss 1e-5
    compared "grad_norm of the CPU backend" close grad_norm 1e-4
else
    compared "loss of the CPU backend" close loss 2e-3
    compared "grad_norm of the CPU backend" close grad_norm 5e-2
fi
compared "the same run again" same repeated reference "repeated"
compared "activations recomputed" same recomputed reference "recomputed"
if command -v mpirun >/dev/null; then
    ranks=2 on_gpu two-ranks
    compared "2 ranks on one GPU" same two-ranks reference "2 ranks, through host memory"
else
    echo "row: 2 ranks on one GPU: NOT RUN: mpirun is not installed"
fi
exit $failed
