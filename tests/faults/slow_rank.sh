#!/bin/bash
# Promise R13: a rank that needs at least twice the others' time for 50 steps is named, and no other.
#
#   tests/faults/slow_rank.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

ranks=2
arm "sleep:step:1:10-59:0.12"
train slow --set training.max_steps=70 --set training.logging_steps=5 --set training.eval_steps=0
fired "a slow rank"
says slow 'rank 1 on [^ ]+ is slow: [0-9.]+ times the median'
says_not slow 'rank 0 on [^ ]+ is slow'
grep -o 'rank 1 on .* is slow: [0-9.]* times.*steps' "$scratch/slow.log" | head -n 1
