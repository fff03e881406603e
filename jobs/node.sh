#!/usr/bin/env bash
# Trains on one machine with several GPUs, without SLURM: one rank per GPU under mpirun. See usage.
set -euo pipefail

usage() {
    cat <<'TXT'
Usage: jobs/node.sh [--ranks N] --config FILE [OPTION]...

Everything but --ranks goes to adamem train. N: the number of GPUs, or 1 without any.

Ctrl-C, SIGTERM or SIGUSR1: the ranks finish their step, write a checkpoint and end with status 75; start again to go on. Ctrl-C
once more: all are killed, which costs the steps since the last checkpoint. Output also goes to logs/node-TIME/start-0.log.
Environment: PROGRAM (build/adamem), LOG_ROOT (logs), MPIRUN_OPTIONS.
TXT
}

ranks=''
while (($#)); do
    case $1 in
        --ranks)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "error: --ranks needs a number" >&2 && exit 2; }
            ranks=$2
            shift 2 ;;
        --help) usage && exit 0 ;;
        *) break ;;
    esac
done
(($#)) || { usage >&2 && exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
PROGRAM=${PROGRAM:-$here/../build/adamem}
[[ -x $PROGRAM ]] || { echo "error: PROGRAM=$PROGRAM is not there: build first, see README.md" >&2 && exit 2; }
command -v mpirun >/dev/null || { echo "error: mpirun is missing (apt-get install openmpi-bin)" >&2 && exit 2; }
[[ -n $ranks ]] || ranks=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
((ranks > 0)) || ranks=1

export HOME=${HOME:-~} # mpirun of Open MPI 5 refuses to start without one: services, cron, env -i
(($(id -u) != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
log_directory=${LOG_ROOT:-logs}/node-$(date +%Y%m%d-%H%M%S)-$$
mkdir -p "$log_directory"
echo "$ranks ranks, log: $log_directory/start-0.log"

interrupts=0
launcher=''
# mpirun hands SIGUSR1 on to the ranks; SIGINT or SIGTERM it would answer by killing them a moment later.
# shellcheck disable=SC2317 # called by the traps
ask() {
    trapped=yes
    echo "got SIG$1: the ranks finish their step and write a checkpoint; Ctrl-C once more kills them" >&2
    [[ -z $launcher ]] || kill -USR1 "$launcher" 2>/dev/null || true # not yet started, or ended already
}

# shellcheck disable=SC2317
interrupted() {
    trapped=yes
    if ((++interrupts == 1)); then
        ask INT
    else
        echo "killed; the last checkpoint is as good as ever" >&2
        [[ -z $launcher ]] || kill -TERM "$launcher" 2>/dev/null || true
    fi
}
trap interrupted INT
trap 'ask TERM' TERM
trap 'ask USR1' USR1

exec {shown}> >(trap '' INT TERM USR1 && exec tee -a "$log_directory/start-0.log")
shower=$!
# In a session of its own: the terminal sends Ctrl-C to all processes of its foreground group, and mpirun must not get it.
# shellcheck disable=SC2086 # options, to be split
setsid mpirun -np "$ranks" --oversubscribe --bind-to none ${MPIRUN_OPTIONS:-} "$here/bind.sh" "$PROGRAM" train "$@" \
    </dev/null >&"$shown" 2>&1 &
launcher=$!
exec {shown}>&-
status=0 last=127
while :; do # a trap ends a wait early
    trapped='' status=0
    wait "$launcher" || status=$?
    ((status != 127)) || status=$last # it had ended when the trap ran
    [[ -n $trapped ]] || break
    last=$status
done
wait "$shower" || true
((status != 75)) || echo "stopped with a checkpoint written: the same command goes on from it" >&2
exit "$status"
