#!/bin/bash
# Promises R11 and R12: a rank that is stopped, hangs or dies ends the whole job, in time, with a report that names it, and leaves
# no process behind.
#
#   tests/faults/watchdog.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/common.sh"
limit=$((2 * slowness))

ranks=1
train reference --set run.watchdog_seconds=$limit
[[ ! -e $scratch/reference/ranks ]] || fail "one rank needs no board"

ranks=3
# Steps take milliseconds here, a look at the board a twentieth of the limit: step 7 waits for one.
arm "stop:step:1:8,sleep:step:1:7:$slowness"
ends failure stopped --set run.watchdog_seconds=$limit --set training.save_steps=4
grep -q "^stop step 1 8" "$scratch/fired" || fail "the rank was not stopped"
fired "SIGSTOP"
says stopped 'watchdog: rank [02] made no progress for [0-9.]+ s .* section training, step 8'
says stopped '^ *rank 1 .*training, step [78], .* no sign of life'
says stopped 'watchdog: the others wait for rank 1, in section training: stopped, dead'
at_most $((limit + 6)) "a stopped rank"
train stopped --set run.watchdog_seconds=$limit --set training.save_steps=4
same stopped reference "a stopped rank, started again"
[[ ! -e $scratch/stopped/ranks ]] || fail "the board is left over"

arm "sleep:step:2:8:60"
ends failure hanging --set run.watchdog_seconds=$limit --set training.save_steps=4
fired "a rank that hangs"
says hanging 'watchdog: the others wait for rank 2, in section training: it has not come to the collective'
at_most $((limit + 6)) "a hanging rank"

# A rank that is stopped in an evaluation is given longer, not for ever.
ranks=1
arm "sleep:evaluation:0:5:60"
ends 1 evaluating --set run.watchdog_seconds=0.3
fired "an evaluation that hangs"
says evaluating 'watchdog: rank 0 made no progress for [0-9.]+ s .* section evaluation, step 5'

ranks=3
arm "segfault:step:1:8"
ends failure dead --set training.save_steps=4
fired "SIGSEGV"
at_most 10 "a dead rank"
train dead --set training.save_steps=4
same dead reference "a dead rank, started again"
