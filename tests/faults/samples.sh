#!/bin/bash
# Promise R15: every epoch takes every sample that is its own exactly once, over ranks, restarts and changes of the number of
# ranks. Read off what the ranks really took, not what the sampler says.
#
#   tests/faults/samples.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

# taken RUN: "EPOCH SAMPLE" sorted. Of a step that was computed twice the later process counts; 8 steps are an epoch. What a
# killed process took after its last checkpoint was taken again.
taken() {
    local file
    for file in "$scratch/$1-samples"/*; do
        awk -v start="$(basename "$file" | cut -c1-12)" '{ print start, $1, $2 }' "$file"
    done | awk '{ if ($1 > newest[$2]) newest[$2] = $1; line[++n] = $0 }
        END { for (i = 1; i <= n; ++i) { split(line[i], f, " "); if (f[1] == newest[f[2]]) print int((f[2] - 1) / 8), f[3] } }' |
        sort -n -k1,1 -k2,2
}

# observed RUN: where the next start of this run tells its samples.
observed() {
    mkdir -p "$scratch/$1-samples"
    export ADAMEM_FAULT_SAMPLES=$scratch/$1-samples
}

ranks=1
observed alone
train alone
taken alone >"$scratch/alone.taken"
awk '{ ++count[$1]; ++times[$1 " " $2] } END {
    for (key in times) if (times[key] != 1) { print "taken " times[key] " times (epoch, sample): " key; bad = 1 }
    if (count[0] != 60 || count[1] != 60) { print "samples per epoch: " count[0] " and " count[1]; bad = 1 }
    exit bad }' "$scratch/alone.taken" >&2 || fail "an epoch should take 60 samples once each"

ranks=3
observed three
train three
diff "$scratch/alone.taken" <(taken three) >&2 || fail "3 ranks take other samples"

# Killed on 2 ranks in epoch 0, on 4 in epoch 1, ended on 1.
observed changing
ranks=2
arm "kill:step:1:7"
ends failure changing --set training.save_steps=3
fired "kill on 2 ranks"
sleep 1 # names of files have seconds
ranks=4
arm "kill:step:0:14"
ends failure changing --set training.save_steps=3
fired "kill on 4 ranks"
sleep 1
ranks=1
train changing --set training.save_steps=3
diff "$scratch/alone.taken" <(taken changing) >&2 || fail "2, 4 and 1 ranks with kills between take other samples"
echo "epochs of 60 samples: the same multisets on 1 rank, on 3, and on 2, 4 and 1 with kills between"
