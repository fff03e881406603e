#!/bin/bash
# Promise R14: a gradient that is not finite on one rank makes all ranks skip the update alike; five in a row end the run with
# status 76 and the last good checkpoint.
#
#   tests/faults/gradients.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

ranks=1
arm "nan:gradient:0:4-6"
train alone
fired "NaN on the only rank"
ranks=2
arm "nan:gradient:1:4-6"
train shared
fired "NaN on rank 1 of 2"
same shared alone "three updates skipped on both ranks, whichever had the NaN"
[[ $(grep -c '"event": "skipped"' "$scratch/shared/metrics.jsonl") == 3 ]] || fail "not three skips in metrics.jsonl"
grep -q '"step": 18.*"updates": 15' "$scratch/shared/metrics.jsonl" || fail "step 18 should have 15 updates"

arm "nan:gradient:1:8-12"
ends 76 diverged --set training.save_steps=3 --set training.eval_steps=0
fired "five in a row"
says diverged 'training diverged: 5 steps in a row'
[[ $(newest_checkpoint diverged) == 6 ]] || fail "the last good checkpoint is $(newest_checkpoint diverged), not 6"
valid diverged 6 || fail "the last good checkpoint is not valid"
echo "status 76 after five steps without a finite gradient, checkpoint-6 kept"
