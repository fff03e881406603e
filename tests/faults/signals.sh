#!/bin/bash
# Promise R8: SIGTERM, SIGUSR1 or SIGINT to any one rank stops all ranks at the same step, with the checkpoint on disk and status
# 75, in steps, evaluations, the preparation of data and before the first step; started again, the run ends with the same bits.
# A second SIGINT ends at once. The file save_now asks for a checkpoint.
#
#   tests/faults/signals.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"

# stopped_at RUN: the step after which the last start stopped.
stopped_at() { sed -n 's/^stopped on request .* after step \([0-9]*\);.*/\1/p' "$scratch/$1.log" | tail -n 1; }

# resumes RUN WHAT
resumes() {
    train "$1"
    same "$1" reference "$2"
}

ranks=1
train reference

# From outside, one rank of two.
ranks=2
arm "sleep:step:*:*:0.05"
start outside --set run.watchdog_seconds=20
until [[ -s $scratch/outside/metrics.jsonl ]]; do sleep 0.02; done # step 3
kill -TERM "$(<"$scratch/rank.1")"
status=0
wait "$launcher" || status=$?
disarm
[[ $status == 75 ]] || { cat "$scratch/outside.log" >&2 && fail "SIGTERM from outside: status $status, not 75"; }
at=$(stopped_at outside)
[[ -n $at ]] || fail "the run does not say where it stopped"
((at >= 3 && at < 20)) || fail "SIGTERM from outside stopped at step $at"
[[ $(newest_checkpoint outside) == "$at" ]] || fail "stopped at step $at, the newest checkpoint is another"
says outside '^goodput [0-9.]+ %: .* in 1 start$'
resumes outside "SIGTERM to rank 1 of 2, all stopped after step $at"
says outside '^goodput [0-9.]+ %: .* in 2 starts$'

# At exact points. An evaluation is due after step 10: its samples are not taken twice, and its line is not missing.
for fault in user:step:1:7 interrupt:evaluation:1:10 terminate:evaluation:0:20; do
    run=at-${fault//:/-}
    arm "$fault"
    ends 75 "$run" --set run.watchdog_seconds=20
    fired "$fault"
    step=${fault##*:}
    [[ $(stopped_at "$run") == "$step" ]] || fail "$fault: stopped after step $(stopped_at "$run")"
    resumes "$run" "$fault"
done

# Before there is anything to save.
arm "terminate:start:1:-1"
ends 75 early
fired "before the first step"
says early 'stopped on request .* before'
resumes early "stopped before the first step"
arm "terminate:prepare:1:-1"
ends 75 preparing --set "data.cache_dir=$scratch/other-cache"
fired "preparation"
says preparing 'stopped on request .*(preparing|training began)'
train preparing --set "data.cache_dir=$scratch/other-cache"
same preparing reference "stopped while data was prepared"

# Twice Ctrl-C, in a step that takes half a minute.
ranks=1
arm "sleep:step:0:2:30"
start twice
until [[ -s $scratch/fired ]]; do sleep 0.02; done
kill -INT "$(<"$scratch/rank.0")"
sleep 0.2
kill -0 "$launcher" 2>/dev/null || fail "the first SIGINT did not wait for the step"
kill -INT "$(<"$scratch/rank.0")"
status=0 from=$SECONDS
wait "$launcher" || status=$?
disarm
((status == 130 && SECONDS - from < 10)) || fail "the second SIGINT: status $status after $((SECONDS - from)) s"

# save_now, while it runs.
arm "sleep:step:0:*:0.05"
start asked
until [[ -s $scratch/asked/metrics.jsonl ]]; do sleep 0.02; done
touch "$scratch/asked/save_now"
wait "$launcher" || fail "asked: ended with an error"
disarm
[[ ! -e $scratch/asked/save_now ]] || fail "save_now is still there"
says asked '^step [0-9]+: saving on request'
at=$(sed -n 's/^step \([0-9]*\): saving on request/\1/p' "$scratch/asked.log")
valid asked "$at" || fail "there is no valid checkpoint of step $at"
same asked reference "a checkpoint on request after step $at"
