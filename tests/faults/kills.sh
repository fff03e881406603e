#!/bin/bash
# Promise R4: ranks killed at random moments, in steps, evaluations and saves, again and again: the run always goes on, from the
# newest checkpoint there is, and ends with the bits of one that nobody disturbed.
#
#   tests/faults/kills.sh ADAMEM_FAULTS [KILLS=10]
set -euo pipefail
adamem=$1
wanted=${2:-10}
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

ranks=1
train reference
RANDOM=${SEED:=$$}
echo "random moments: SEED=$SEED"

# A third are hit while they start, the others in their steps: the armed fault tells of the first one.
wait_for_moment() {
    if ((RANDOM % 3)); then
        until [[ -s $scratch/fired ]] || ! kill -0 "$launcher" 2>/dev/null; do sleep 0.01; done
    fi
    sleep "0.$((10 + RANDOM % 50))"
}

kills=0 round=0
while ((kills < wanted)); do
    run=run-$((++round))
    for ((start = 0; ; ++start)); do
        newest=
        [[ -d $scratch/$run ]] && newest=$(newest_checkpoint "$run")
        ranks=$((1 + RANDOM % 2)) victim=$((RANDOM % 2 % ranks))
        arm "sleep:step:*:*:0.03" # so that a run has time to be killed
        rm -f "$scratch/$run.log"
        start "$run" --set training.save_steps=2 --set training.save_total_limit=2
        if ((kills < wanted && start < 5)); then
            wait_for_moment
            if [[ -s $scratch/rank.$victim ]] && kill -KILL "$(<"$scratch/rank.$victim")" 2>/dev/null; then kills=$((kills + 1)); fi
        fi
        wait "$launcher" 2>/dev/null || true
        all_ranks_gone || sleep 1
        all_ranks_gone || fail "$run: ranks are left over"
        rm -f "$scratch"/rank.*
        if [[ -n $newest ]] && grep -q '^continuing from' "$scratch/$run.log"; then
            from=$(resumed_from "$run")
            ((from == newest)) || fail "$run went on from step $from, though checkpoint-$newest was there"
        fi
        if [[ -e $scratch/$run/final.h5 ]]; then break; fi
    done
    disarm
    same "$run" reference "killed at random"
    rm -rf "${scratch:?}/$run"
done
echo "$kills ranks killed at random in $round runs: every run went on and ended with the same bits"
