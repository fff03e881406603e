#!/bin/bash
# Runs a command in which one rank meets a fault, and checks that it ends as it should: in time, with the right status, and
# saying why.
#
#   tests/nccl/fault.sh FAULT good|bad SECONDS MESSAGE COMMAND...
#
# FAULT is of tests/nccl_stand_in (or "none"), MESSAGE an extended regular expression that a line of the output must match.
# SECONDS count from the output's line "fault at N ms" where there is one, else from the start.
set -uo pipefail
fault=$1 expected=$2 limit=$3 message=$4
shift 4
[[ $fault == none ]] || export NCCL_STAND_IN_FAULT=$fault

start=$((${EPOCHREALTIME/./} / 1000))
output=$(timeout 60 "$@" 2>&1)
status=$?
end=$((${EPOCHREALTIME/./} / 1000))
[[ $output =~ fault\ at\ ([0-9]+)\ ms ]] && start=${BASH_REMATCH[1]}
milliseconds=$((end - start))
printf '%s\nexit status %d, %d ms\n' "$output" "$status" "$milliseconds"

fail() {
    echo "fault.sh: $fault: $1" >&2
    exit 1
}
if [[ $expected == good ]]; then
    ((status == 0)) || fail "exit status $status, expected 0"
else
    ((status != 0 && status != 124)) || fail "exit status $status, expected an error"
fi
((milliseconds < limit * 1000)) || fail "it took $milliseconds ms, limit $limit s"
grep -Eq "$message" <<<"$output" || fail "no line says: $message"
