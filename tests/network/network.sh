#!/bin/bash
# Ranks on two hosts with nothing but a wire between them: the same bits as one rank, and bytes on the wire; when the link is cut
# in the middle of a run all ranks on both sides end in time, not 0, with a report, and the next start goes on with the same bits.
#
#   tests/network/network.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/../faults/common.sh"
# shellcheck source=tests/network/hosts.sh
. "$(dirname "$0")/hosts.sh"
lacks=$(hosts_lack)
[[ -z $lacks ]] || { echo "skipped: $lacks" && exit 77; }

end_hosts() {
    hosts_down
    clean_up
}
trap end_hosts EXIT

# distributed RUN [--set KEY=VALUE]...: in the background, two ranks on each host.
distributed() {
    local run=$1
    shift
    rm -f "$scratch"/rank.*
    # shellcheck disable=SC2016 # expanded by the shell of each rank
    (cd "$scratch" && export OMP_NUM_THREADS=1 && on_hosts 2 \
        bash -c 'echo $$ >"'"$scratch"'/rank.$OMPI_COMM_WORLD_RANK" && uname -n >"'"$scratch"'/host.$OMPI_COMM_WORLD_RANK" && exec "$@"' \
        rank "$adamem" train --config "$scratch/run.cfg" --set "run.output_dir=$scratch/$run" "$@") \
        </dev/null >>"$scratch/$run.log" 2>&1 &
    launcher=$!
}

finish() {
    local status=0
    wait "$launcher" || status=$?
    ((status == 0)) || { cat "$scratch/$1.log" >&2 && fail "$1 ended with status $status"; }
}

ranks=1
train reference
hosts_up

before=$(wire_bytes)
distributed whole
finish whole
carried=$(($(wire_bytes) - before))
[[ $(sort "$scratch"/host.* | uniq -c | xargs) == "2 first 2 second" ]] || fail "the ranks ran elsewhere: $(cat "$scratch"/host.*)"
# 20 steps, each with a gradient of 64-bit integers that both hosts must have the sum of.
parameters=$(sed -n 's/^training \([0-9]*\) of .*/\1/p' "$scratch/whole.log" | head -n 1)
((carried > 20 * parameters * 8)) || fail "$carried bytes on the wire are too few for 20 gradients of $parameters numbers"
same whole reference "4 ranks on two hosts, $((carried / 1000)) kB on the wire"

# cut_within RUN SECONDS [--set KEY=VALUE]...: cuts the link of the run; mpirun and all ranks end in time. Not in an evaluation
# (every 5 steps) nor in the step after a checkpoint: the watchdog gives those longer.
cut_within() {
    local run=$1 allowed=$(($2 * slowness)) from status=0
    shift 2
    arm "sleep:step:*:12-15:1"
    distributed "$run" --set training.save_steps=11 "$@"
    until grep -q '"step": 12,' "$scratch/$run/metrics.jsonl" 2>/dev/null; do
        kill -0 "$launcher" 2>/dev/null || { cat "$scratch/$run.log" >&2 && fail "$run ended before its link was cut"; }
        sleep 0.02
    done
    link_cut
    from=$SECONDS
    while kill -0 "$launcher" 2>/dev/null || ! all_ranks_gone; do
        ((SECONDS - from <= allowed)) || { cat "$scratch/$run.log" >&2 && fail "$run: mpirun or a rank outlives the link by $allowed s"; }
        sleep 0.1
    done
    took=$((SECONDS - from))
    wait "$launcher" || status=$?
    ((status != 0 && status != 75)) || { cat "$scratch/$run.log" >&2 && fail "$run: the link was cut, status $status"; }
    fired "a step slow enough to be cut"
    link_join
}

# goes_on RUN WHAT
goes_on() {
    distributed "$1"
    finish "$1"
    says "$1" '^continuing from step 11'
    same "$1" reference "$2, all gone after $took s, started again"
}

# The ranks notice.
limit=$((3 * slowness))
cut_within watched $((limit + 15)) --set "run.watchdog_seconds=$limit"
# The table of all ranks may be told by a rank on the far side, whose words no longer arrive.
says watched 'watchdog: rank [01] made no progress for .* section training, step 1[34], inside the collective'
goes_on watched "a cut link, ended by the watchdog"

# mpirun notices, long before the watchdog: the settings of jobs/common.sh, with shorter times.
if mpirun --version | grep -qE '\(Open MPI\) 4\.'; then
    export OMPI_MCA_oob_tcp_keepalive_time=1 OMPI_MCA_oob_tcp_keepalive_intvl=1 OMPI_MCA_oob_tcp_keepalive_probes=2
    cut_within alone 15 --set run.watchdog_seconds=600
    says_not alone 'watchdog:'
    goes_on alone "a cut link, ended by mpirun"
fi
