#!/bin/bash
# The whole program on the emulated GPU: training, evaluation, export, ranks, and what goes wrong.
#
#   tests/cuda_on_host/program.sh ADAMEM_ON_HOST float32|bfloat16
#
# Device memory is guarded: the program itself must never read or write it. keep=1 leaves the runs behind.
set -euo pipefail
adamem=$1
dtype=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cuda-on-host-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../same_bits/common.sh"
export CUDA_ON_HOST_GUARD=1 CUDA_ON_HOST_MEMORY=4096

# shellcheck disable=SC2034 # read by make_config
steps=2
make_data
make_config
sed -i -e 's/global_batch_size = 8/global_batch_size = 4/; s/logging_steps = 3; eval_steps = 5/logging_steps = 1; eval_steps = 2/' \
    -e 's/per_device_train_batch_size = 2/per_device_train_batch_size = 1/' "$scratch/run.cfg"
head -n 4 "$scratch/held-out.jsonl" >"$scratch/few.jsonl" && mv "$scratch/few.jsonl" "$scratch/held-out.jsonl"

on_gpu() { train "$@" --set run.backend=cuda; }
train cpu --set run.backend=cpu
on_gpu reference

# numbers RUN KEY: the values of that key in metrics.jsonl, one per line
numbers() { grep -o "\"$2\": [-0-9.e]*" "$scratch/$1/metrics.jsonl" | cut -d' ' -f2; }

# close KEY LIMIT: relative differences between the backends
close() {
    paste <(numbers cpu "$1") <(numbers reference "$1") | awk -v key="$1" -v limit="$2" -v dtype="$dtype" '
        { d = ($1 - $2) / $1; d = d < 0 ? -d : d; if (d > most) most = d }
        END { printf "%s, GPU and CPU, %s: at most %.2g of %g apart\n", key, dtype, most, limit; exit !(NR >= 1 && most <= limit) }' ||
        fail "$1 is not that of the CPU backend"
}
if [[ $dtype == float32 ]]; then
    close loss 1e-6
    close grad_norm 1e-5
    close eval_loss 1e-6
else
    close loss 2e-3
    close grad_norm 5e-2
    close eval_loss 2e-3
fi

ranks=2 on_gpu two-ranks
same two-ranks reference "2 ranks, through host memory"
CUDA_ON_HOST_STREAMS=all-late on_gpu recomputed --set training.gradient_checkpointing=full
same recomputed reference "activations recomputed, every stream late"
if [[ $dtype == bfloat16 ]]; then # what follows does not depend on the type
    on_gpu repeated
    same repeated reference "the same run again"
    exit 0
fi
# Every wait between streams is needed by one of these.
for mode in work-late copies-late; do
    CUDA_ON_HOST_STREAMS=$mode on_gpu "$mode"
    same "$mode" reference "streams: $mode"
done

# What is allocated does not depend on the number of steps.
allocations() { sed -n 's/^cuda_on_host: \([0-9]*\) allocations.*/\1/p' "$scratch/$1.log"; }
CUDA_ON_HOST_REPORT=1 on_gpu short --set training.max_steps=2 --set training.eval_steps=2
CUDA_ON_HOST_REPORT=1 on_gpu long --set training.max_steps=4 --set training.eval_steps=2
[[ -n $(allocations short) && $(allocations short) == "$(allocations long)" ]] ||
    fail "allocations: $(allocations short) in 2 steps, $(allocations long) in 4"
echo "no allocation after the second step: $(allocations long) in all"

# What training left behind is what evaluate and export read.
evaluated=$(cd "$scratch" && "$adamem" evaluate --config run.cfg --set run.backend=cuda --checkpoint reference/final.h5 2>/dev/null |
    grep -o '"loss": [0-9.]*' | cut -d' ' -f2)
[[ $evaluated == "$(numbers reference eval_loss | tail -n 1)" ]] || fail "evaluate gives $evaluated, the run another loss"
echo "evaluate gives the run's own eval_loss"
(cd "$scratch" && "$adamem" export --checkpoint reference/final.h5 --format peft --output adapter >/dev/null 2>&1 &&
    "$adamem" evaluate --model "$repository/tests/parity/data/tied_h64" --adapter adapter --input held-out.jsonl --format tokens \
        --set run.backend=cuda --set model.dtype="$dtype" --set training.per_device_train_batch_size=1 \
        >adapter.json 2>/dev/null) || fail "export or its evaluation"
[[ $(grep -o '"loss": [0-9.]*' "$scratch/adapter.json" | cut -d' ' -f2) == "$evaluated" ]] || fail "the exported adapter has another loss"
echo "the exported adapter has the same loss"

# Too little memory: one line that names the plan and the keys, nothing written. 64 MiB are cuBLASLt's.
for memory in 65 66 67; do
    status=0
    (cd "$scratch" && CUDA_ON_HOST_MEMORY=$memory "$adamem" train --config run.cfg --set run.backend=cuda \
        --set run.output_dir=too-large 2>too-large.log) || status=$?
    [[ $status == 1 ]] || fail "with $memory MiB the exit status is $status"
    [[ $(grep -c 'rror' "$scratch/too-large.log") == 1 ]] || fail "with $memory MiB: not one line of error"
    grep -Eq 'error: .*out of GPU memory: .* the plan: .*lower training.per_device_train_batch_size' "$scratch/too-large.log" ||
        fail "with $memory MiB: $(grep error "$scratch/too-large.log")"
    [[ -z $(ls -A "$scratch/too-large" 2>/dev/null) ]] || fail "with $memory MiB something was written"
done
echo "too little memory is explained"
