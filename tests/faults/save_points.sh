#!/bin/bash
# Promise R5: killed at each of the points of a save, the directory always has a valid checkpoint, from which the run goes on to
# the bits of one that nobody disturbed.
#
#   tests/faults/save_points.sh ADAMEM_FAULTS [TIMES=1]
set -euo pipefail
adamem=$1
times=${2:-1}
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

ranks=1
train reference --set training.eval_steps=0
count=0
for point in before-write write:3 write:40 before-fsync before-rename before-link rotation; do
    for ((i = 0; i < times; ++i)); do
        step=$((9 + 3 * (i % 4))) pass=${point#*:}
        [[ $pass == "$point" ]] && pass=1
        run=point-$((++count))
        arm "kill:${point%:*}:0:$step:$pass"
        ends 137 "$run" --set training.eval_steps=0 --set training.save_steps=3 --set training.save_total_limit=2
        fired "$point"
        good=0
        for file in "$scratch/$run"/checkpoint-*.h5; do
            at=${file##*-}
            if valid "$run" "${at%.h5}"; then good=$((good + 1)); fi
        done
        ((good >= 1)) || fail "$point: no valid checkpoint is left"
        train "$run" --set training.eval_steps=0 --set training.save_steps=3 --set training.save_total_limit=2
        from=$(resumed_from "$run")
        ((from >= step - 3)) || fail "$point: went on from step ${from:-0}, not at least $((step - 3))"
        same "$run" reference "killed at $point of the save at step $step, $good valid checkpoints, continued from step $from"
        ! compgen -G "$scratch/$run/*.tmp*" >/dev/null || fail "$point: a temporary file is left over"
        rm -rf "${scratch:?}/$run"
    done
done
echo "$count kills inside saves"
