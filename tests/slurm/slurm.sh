#!/bin/bash
# The job scripts, on a real SLURM that this script starts and stops (cluster.sh): promises R8 and R9. Jobs that are stopped at
# their time limit, by scancel --signal=TERM or by a killed rank save what they must, requeue themselves, go on, and end with the
# bits of a run that nobody disturbed; a cancelled job stays cancelled; a job without progress gives up; chained jobs wait for
# each other.
#
#   tests/slurm/slurm.sh ADAMEM_FAULTS
set -euo pipefail
adamem=$1
# shellcheck source=tests/faults/common.sh
. "$(dirname "$0")/../faults/common.sh"
# shellcheck source=tests/slurm/cluster.sh
. "$(dirname "$0")/cluster.sh"
lacks=$(cluster_lacks)
[[ -z $lacks ]] || { echo "skipped: $lacks" && exit 77; }

end_cluster() {
    cluster_stop
    clean_up
}
trap end_cluster EXIT

# The program of the jobs: the faults of the file $FAULT_FILE, one line per start, "-" for none, and a time per step that leaves
# room to be disturbed in.
cat >"$scratch/program" <<PROGRAM
#!/bin/bash
export OMP_NUM_THREADS=1
fault=\$(sed -n "\$((\${SLURM_RESTART_COUNT:-0} + 1))p" "\$FAULT_FILE")
[[ -z \$fault || \$fault == - ]] || export ADAMEM_FAULT=\$fault ADAMEM_FAULT_LOG=\${FAULT_FILE%.faults}.fired
exec "$adamem" "\$@"
PROGRAM
chmod +x "$scratch/program"
ln -s "$repository/jobs" "$scratch/jobs"
export PROGRAM=$scratch/program CONFIG=$scratch/run.cfg LOG_ROOT=$scratch/logs MPIRUN_OPTIONS=--oversubscribe
unset OMP_NUM_THREADS

# submit NAME FAULTS [SBATCH OPTION]... -- [OPTION]...: cnn_dailymail.sh with the run NAME; $job is its number. FAULTS: one per
# start, separated by blanks.
submit() {
    local name=$1 options=()
    tr ' ' '\n' <<<"$2" >"$scratch/$name.faults"
    shift 2
    while [[ ${1:---} != -- ]]; do
        options+=("$1")
        shift
    done
    (($# == 0)) || shift
    job=$(cd "$scratch" && FAULT_FILE=$scratch/$name.faults sbatch --parsable --job-name="$name" --nodes=1 --ntasks-per-node=2 \
        --gpus-per-node=0 --output="$scratch/$name.out" "${options[@]}" jobs/cnn_dailymail.sh \
        --set "run.output_dir=$scratch/$name" "$@")
}

state() { scontrol --oneliner show job "$1" | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p'; }

show() { tail -n 60 "$scratch/$1.out" "$scratch/logs/$1-"*/start-*.log >&2 || true; }

# within SECONDS NAME COMMAND...: waits until the command is true.
within() {
    local limit=$((SECONDS + $1 * slowness)) name=$2
    shift 2
    until "$@"; do
        ((SECONDS < limit)) || { show "$name" && fail "$name: not within the time: $*"; }
        sleep 0.2
    done
}

ended() { [[ $(state "$1") == @(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL) ]]; }

# completed NAME JOB SECONDS: ends well, after so many restarts.
completed() {
    within "$3" "$1" ended "$2"
    [[ $(state "$2") == COMPLETED ]] || { show "$1" && fail "$1: ended as $(state "$2")"; }
}

steps_logged() { [[ -s $scratch/$1/metrics.jsonl ]] && (($(grep -c '"loss"' "$scratch/$1/metrics.jsonl") >= $2)); }

restarts() { wc -l <"$(echo "$scratch/logs/$1-"*/starts.txt)"; }

output_says() { grep -qE -- "$2" "$scratch/$1.out" || { show "$1" && fail "$1 does not say: $2"; }; }

# requeued_once NAME STATUS: its first start ended with this status, the second came to the end, from a checkpoint.
requeued_once() {
    output_says "$1" "ended with status $2 "
    output_says "$1" 'SLURM_RESTART_COUNT=1: '
    [[ $(restarts "$1") == 2 ]] || { show "$1" && fail "$1: started $(restarts "$1") times, not twice"; }
    grep -q '^continuing from step [1-9]' "$scratch/logs/$1-"*/start-1.log || { show "$1" && fail "$1: did not go on"; }
    same "$1" reference "$3"
}

fault_fired() { [[ -s $scratch/$1.fired ]] || { show "$1" && fail "$1: its fault never fired"; }; }

ranks=1
train reference
cluster_start
slow="sleep:step:*:*:"

# All at once: most of the time is SLURM's.
submit calm -
calm=$job
# The time limit is a minute, the signal is due a minute before: SLURM, which looks twice a minute, sends it then.
submit limit "${slow}3 -" --time=1 --signal=B:USR1@60
limit=$job
submit terminated "${slow}0.5 -"
terminated=$job
submit killed kill:step:1:8 -- --set training.save_steps=3
killed=$job
submit cancelled "${slow}0.5 -"
cancelled=$job
# Dies at each start, before the first checkpoint.
submit stuck "kill:step:0:2 kill:step:0:2 kill:step:0:2 kill:step:0:2" --export=ALL,MAX_STARTS_WITHOUT_PROGRESS=2
stuck=$job
submit mistyped - -- --set training.lerning_rate=1
mistyped=$job
# The three phases, one after the other: here each goes on with the run of the one before, and the first is interrupted.
mkdir "$scratch/configs"
for phase in 1 2 3; do
    { cat "$CONFIG" && echo "# of phase $phase"; } | sed "s|^run = {|& output_dir = \"$scratch/chain\";|" \
        >"$scratch/configs/adamem_phase$phase.cfg"
done
printf '%s\n' terminate:step:1:6 - >"$scratch/chain.faults"
schedule=$(cd "$scratch" && unset CONFIG && FAULT_FILE=$scratch/chain.faults sbatch --parsable --output="$scratch/schedule.out" \
    jobs/adamem_schedule.sh --ntasks-per-node=2 --gpus-per-node=0 --output="$scratch/%x.out")
LAUNCHER=mpirun submit mpirun "${slow}0.5 -"
mpirun_job=$job

# Containers, by stand-ins that note how they are called and run the program all the same.
mkdir "$scratch/stand-ins"
cat >"$scratch/stand-ins/apptainer" <<STAND_IN
#!/bin/bash
echo "\$*" >>"$scratch/apptainer.calls"
while [[ \$1 != *.sif ]]; do shift; done
shift && exec "\$@"
STAND_IN
cat >"$scratch/stand-ins/srun" <<STAND_IN
#!/bin/bash
echo "\$*" >>"$scratch/srun.calls"
for word in "\$@"; do [[ \$word == --container-* ]] || words+=("\$word"); done
exec "$(command -v srun)" "\${words[@]}"
STAND_IN
chmod +x "$scratch"/stand-ins/*
PATH=$scratch/stand-ins:$PATH CONTAINER=$scratch/image.sif submit apptainer -
apptainer=$job
PATH=$scratch/stand-ins:$PATH CONTAINER=registry/image:1 submit pyxis -
pyxis=$job

within 60 terminated steps_logged terminated 1
scancel --signal=TERM "$terminated" # reaches the ranks, not the script
within 60 cancelled steps_logged cancelled 1
scancel "$cancelled"
within 60 mpirun steps_logged mpirun 1
scancel --signal=USR1 --batch "$mpirun_job" # reaches the script, as at the time limit

completed calm "$calm" 60
[[ $(restarts calm) == 1 ]] || fail "calm was restarted"
launcher_used=$(sed -nE 's/^[-0-9]+ [:0-9]+ (srun --mpi=pmix|mpirun) .*/\1/p' "$scratch/calm.out")
srun --mpi=list 2>&1 | grep -q pmix && wanted="srun --mpi=pmix" || wanted=mpirun
[[ $launcher_used == "$wanted" ]] || fail "calm was launched by \"$launcher_used\", not by $wanted"
same calm reference "$wanted, two ranks"
grep -q ' on 2 ranks' "$scratch/logs/calm-"*/start-0.log || fail "calm did not run on two ranks"

completed terminated "$terminated" 60
requeued_once terminated 75 "scancel --signal=TERM, requeued"
completed killed "$killed" 60
fault_fired killed
[[ $(sed -n '2s/.* //p' "$scratch/logs/killed-"*/starts.txt) == 6 ]] || fail "killed: did not keep checkpoint-6"
requeued_once killed '[1-9][0-9]*' "a killed rank, requeued"
completed mpirun "$mpirun_job" 90
output_says mpirun 'got SIGUSR1'
requeued_once mpirun 75 "mpirun instead of srun, requeued"

completed apptainer "$apptainer" 60
grep -q "^exec --bind $scratch --pwd $scratch $scratch/image.sif $PROGRAM train " "$scratch/apptainer.calls" || fail "apptainer: $(<"$scratch/apptainer.calls")"
same apptainer reference "in a container, by apptainer"
if [[ $wanted != mpirun ]]; then
    completed pyxis "$pyxis" 60
    grep -q -- " --container-image=registry/image:1 --container-mounts=$scratch:$scratch --container-workdir=$scratch " "$scratch/srun.calls" ||
        fail "srun: $(<"$scratch/srun.calls")"
    same pyxis reference "in a container, by srun"
fi

completed schedule "$schedule" 60
phases=$(sed -n 's/^phase [123]: job \([0-9]*\).*/\1/p' "$scratch/schedule.out" | xargs)
[[ $phases == +([0-9])" "+([0-9])" "+([0-9]) ]] || { show schedule && fail "schedule: submitted \"$phases\""; }
read -r first second third <<<"$phases"
completed phase1 "$first" 60
fault_fired chain
output_says phase1 'SLURM_RESTART_COUNT=1: '
completed phase2 "$second" 60
completed phase3 "$third" 60
same chain reference "three phases in a chain, the first interrupted"
for phase in 2 3; do
    grep -q '^continuing from step 20' "$scratch/logs/phase$phase-"*/start-0.log || { show phase$phase && fail "phase $phase began too early"; }
done

within 60 mistyped ended "$mistyped"
[[ $(state "$mistyped") == FAILED && $(restarts mistyped) == 1 ]] || fail "mistyped: $(state "$mistyped")"
output_says mistyped 'not requeued: wrong usage'
output_says mistyped 'learning_rate'
within 90 stuck ended "$stuck"
fault_fired stuck
[[ $(state "$stuck") == FAILED && $(restarts stuck) == 2 ]] || { show stuck && fail "stuck: $(state "$stuck") after $(restarts stuck)"; }
output_says stuck 'not requeued: 2 starts without a newer checkpoint'

completed limit "$limit" 150
output_says limit 'got SIGUSR1'
requeued_once limit 75 "signalled at the time limit, requeued"

[[ $(state "$cancelled") == CANCELLED && $(restarts cancelled) == 1 ]] || { show cancelled && fail "cancelled: $(state "$cancelled")"; }
[[ $(newest_checkpoint cancelled) -ge 3 ]] || fail "cancelled: nothing was saved"
echo "slurm $(sinfo --version | cut -d' ' -f2): $SECONDS s"
