#!/bin/bash
# jobs/node.sh: SIGINT and SIGTERM become a checkpoint and status 75, the same command goes on with the same bits; a second SIGINT
# kills all ranks.
#
#   tests/slurm/node.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/../faults/common.sh"
export LOG_ROOT=$scratch/logs OMP_NUM_THREADS=1

# The ranks tell their ids, so that clean_up and all_ranks_gone know them.
cat >"$scratch/program" <<PROGRAM
#!/bin/bash
echo \$\$ >"$scratch/rank.\$OMPI_COMM_WORLD_RANK"
exec "$adamem" "\$@"
PROGRAM
chmod +x "$scratch/program"
export PROGRAM=$scratch/program

# node RUN: in the background; a shell's & would make it deaf to SIGINT.
node() {
    rm -f "$scratch"/rank.*
    (cd "$scratch" && exec env --default-signal=INT "$repository/jobs/node.sh" --ranks 2 --config run.cfg \
        --set "run.output_dir=$1" --set run.watchdog_seconds=20) </dev/null >>"$scratch/$1.log" 2>&1 &
    launcher=$!
}

ends_with() {
    local status=0
    wait "$launcher" || status=$?
    [[ $status == "$2" ]] || { cat "$scratch/$1.log" >&2 && fail "$1: status $status, not $2"; }
    all_ranks_gone || { sleep 1 && all_ranks_gone; } || fail "$1: ranks are left over"
}

ranks=1
train reference
for signal in INT TERM; do
    arm "sleep:step:*:*:0.1"
    node "$signal"
    until [[ -s $scratch/$signal/metrics.jsonl ]]; do sleep 0.02; done
    kill "-$signal" "$launcher"
    ends_with "$signal" 75
    disarm
    says "$signal" '^stopped on request .* after step'
    says "$signal" 'the same command goes on'
    node "$signal"
    ends_with "$signal" 0
    says "$signal" '^continuing from step [1-9]'
    same "$signal" reference "jobs/node.sh, SIG$signal"
done

arm "sleep:step:*:5:30"
node twice
until [[ -s $scratch/fired ]]; do sleep 0.02; done
kill -INT "$launcher"
sleep 0.5
kill -0 "$launcher" || fail "the first SIGINT did not wait"
from=$SECONDS
kill -INT "$launcher"
status=0
wait "$launcher" || status=$?
((status != 0 && status != 75 && SECONDS - from < 10)) || fail "the second SIGINT: status $status after $((SECONDS - from)) s"
all_ranks_gone || { sleep 2 && all_ranks_gone; } || fail "twice: ranks are left over"
fired "a step of half a minute"
says twice 'killed; the last checkpoint'

status=0
(cd "$scratch" && PROGRAM=/nowhere "$repository/jobs/node.sh" --config run.cfg) 2>"$scratch/none.log" || status=$?
[[ $status == 2 ]] || fail "a missing program: status $status"
says none 'build first'
echo "node: ok"
