# shellcheck shell=bash
# What the SLURM job scripts share. A job script sets its variables and then says
#
#   . jobs/common.sh
#   job_run train --config "$CONFIG"
#
# job_run starts one rank per task (srun, or mpirun where srun has no PMIx), hands on the signals that ask for a stop, and ends or
# requeues the job by the program's exit status:
#
#   0            done
#   2, 76        wrong input, or diverged: starting again would not help, the job ends with this status
#   75           stopped on request with a checkpoint written: requeued
#   all others   a rank died, a node was lost, the watchdog has struck: requeued
#
# unless the job's last MAX_STARTS_WITHOUT_PROGRESS starts have left no newer checkpoint: then it ends with status 1. A job that
# somebody cancels stays cancelled. One directory per job, logs/NAME-ID, keeps what is said: start-N.log of each start (what the
# program prints), starts.txt (a line per start: time, restart number, step it began at), slurm.out (a link to what SLURM prints).
#
# Variables, all optional but CONFIG:
: "${CONFIG:?the job script sets it}"
PROGRAM=${PROGRAM:-build/adamem} # or the start script of the bundle (cmake --build build --target bundle)
CONTAINER=${CONTAINER:-}         # an image: a .sif file or folder is run with apptainer, all else by srun --container-image
LOG_ROOT=${LOG_ROOT:-logs}
MAX_STARTS_WITHOUT_PROGRESS=${MAX_STARTS_WITHOUT_PROGRESS:-3}
LAUNCHER=${LAUNCHER:-auto}       # srun, mpirun; auto: srun where it has PMIx
MPIRUN_OPTIONS=${MPIRUN_OPTIONS:-}

say() { echo "$(date '+%F %T') $*"; }

# job_check: what must hold before anything is started, told while somebody may still be looking.
job_check() {
    [[ -n ${SLURM_JOB_ID:-} ]] || { echo "error: start with: sbatch $0 (on one machine without SLURM: jobs/node.sh)" >&2 && return 2; }
    [[ -r $CONFIG ]] || { echo "error: CONFIG=$CONFIG: no such file in $PWD" >&2 && return 2; }
    [[ -n $CONTAINER || -x $PROGRAM ]] || { echo "error: PROGRAM=$PROGRAM is not there: build first, see README.md" >&2 && return 2; }
}

# job_output_directory [OPTION]...: the directory of the run, as the program sees it.
job_output_directory() {
    local previous='' word found
    found=$(sed -n 's/^[^#]*output_dir *= *"\([^"]*\)".*/\1/p' "$CONFIG" | tail -n 1)
    for word in "$@"; do
        [[ $previous == --set && $word == run.output_dir=* ]] && found=${word#*=}
        [[ $word == --set=run.output_dir=* ]] && found=${word#--set=run.output_dir=}
        previous=$word
    done
    echo "${found:-runs}"
}

# newest_step DIRECTORY: of the newest checkpoint; -1 without one.
newest_step() {
    local file step newest=-1
    for file in "$1"/checkpoint-*.h5; do
        step=${file##*/checkpoint-}
        step=${step%.h5}
        [[ $step =~ ^[0-9]+$ ]] && ((10#$step > newest)) && newest=$((10#$step))
    done
    echo "$newest"
}

# starts_without_progress FILE STEP: how many starts in a row, this one included, began at the step at which the newest
# checkpoint still is.
starts_without_progress() {
    awk -v step="$2" '{ count = $3 == step ? count + 1 : 0 } END { print count + 0 }' "$1"
}

# job_command: sets the array `command`, the launcher with all its options, up to the program.
job_command() {
    local inside=() image=()
    case $CONTAINER in
        '') ;;
        *.sif | /* | ./*)
            inside=("$(command -v apptainer || command -v singularity || echo apptainer)" exec)
            [[ -z ${SLURM_GPUS_ON_NODE:-} ]] || inside+=(--nv)
            inside+=(--bind "$PWD" --pwd "$PWD" "$CONTAINER") ;;
        *) image=("--container-image=$CONTAINER" "--container-mounts=$PWD:$PWD" "--container-workdir=$PWD") ;;
    esac
    if [[ $LAUNCHER == auto ]]; then
        LAUNCHER=mpirun
        if [[ -n ${image[*]} ]] || srun --mpi=list 2>&1 | grep -q pmix; then LAUNCHER=srun; fi
    fi
    if [[ $LAUNCHER == srun ]]; then
        # jobs/bind.sh binds, by the GPU of the rank; a rank that dies takes the others with it.
        command=(srun --mpi=pmix --cpu-bind=none --kill-on-bad-exit=1 "${image[@]}")
    else
        # A lost machine ends the job after some 40 s. Without this mpirun notices after 8 minutes; when the ranks have ended
        # by their watchdog it even waits for an answer from there for a quarter of an hour.
        export OMPI_MCA_oob_tcp_keepalive_time=${OMPI_MCA_oob_tcp_keepalive_time:-20}
        export OMPI_MCA_oob_tcp_keepalive_intvl=${OMPI_MCA_oob_tcp_keepalive_intvl:-5}
        export OMPI_MCA_oob_tcp_keepalive_probes=${OMPI_MCA_oob_tcp_keepalive_probes:-4}
        # shellcheck disable=SC2206 # options, to be split
        command=(mpirun -np "$SLURM_NTASKS" --bind-to none $MPIRUN_OPTIONS)
    fi
    command+=("$PWD/jobs/bind.sh" "${inside[@]}" "$PROGRAM")
}

# The launcher hands SIGUSR1 on to the ranks. Asked once is enough; a launcher that has ended does not mind.
job_stop() {
    interrupted=yes
    say "got SIG$1: the ranks are asked to write a checkpoint and stop"
    [[ -z ${launcher_id:-} ]] || kill -USR1 "$launcher_id" 2>/dev/null || true
}

# The exit status of the launcher. A trap ends a wait early: wait again.
job_wait() {
    local status last=127
    while :; do
        interrupted='' status=0
        wait "$launcher_id" || status=$?
        ((status != 127)) || status=$last # it had ended when the trap ran
        [[ -n $interrupted ]] || return "$status"
        last=$status
    done
}

# Again, unless SLURM is ending the job for another reason: a requeue would bring a cancelled job back to life.
job_requeue() {
    if ! scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q ' JobState=RUNNING '; then
        say "the job is being ended by SLURM: not requeued here"
        return 1
    fi
    say "requeued; SLURM waits before it starts the job again, about 2 minutes where the cluster says nothing else"
    scontrol requeue "$SLURM_JOB_ID"
}

# job_run SUBCOMMAND [OPTION]...: does not return.
job_run() {
    local log_directory output_directory log status=0 stalled begin=$SECONDS command=()
    job_check || exit
    # Since 22.05 srun does not take this over from sbatch by itself.
    [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    log_directory=$LOG_ROOT/$SLURM_JOB_NAME-$SLURM_JOB_ID
    output_directory=$(job_output_directory "$@")
    mkdir -p "$log_directory"
    log=$log_directory/start-${SLURM_RESTART_COUNT:-0}.log
    ln -sfn "$(scontrol --oneliner show job "$SLURM_JOB_ID" | sed -n 's/.* StdOut=\([^ ]*\).*/\1/p')" "$log_directory/slurm.out"
    echo "$(date +%FT%T) ${SLURM_RESTART_COUNT:-0} $(newest_step "$output_directory")" >>"$log_directory/starts.txt"
    say "job $SLURM_JOB_ID ($SLURM_JOB_NAME), SLURM_RESTART_COUNT=${SLURM_RESTART_COUNT:-0}: $SLURM_NTASKS ranks on" \
        "$SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST), newest checkpoint: step $(newest_step "$output_directory"), log: $log"
    job_command
    say "${command[*]} $*"
    trap 'job_stop USR1' USR1
    trap 'job_stop TERM' TERM
    trap 'job_stop INT' INT
    "${command[@]}" "$@" </dev/null >>"$log" 2>&1 &
    launcher_id=$!
    job_wait || status=$?

    say "ended with status $status after $((SECONDS - begin)) s, newest checkpoint: step $(newest_step "$output_directory")"
    ((status == 0)) && exit 0
    ((status == 75)) || { echo "the last words of $log:" && tail -n 20 "$log"; }
    if ((status == 2 || status == 76)); then
        say "not requeued: $( ((status == 2)) && echo "wrong usage, configuration or input" || echo "training diverged")"
        exit "$status"
    fi
    stalled=$(starts_without_progress "$log_directory/starts.txt" "$(newest_step "$output_directory")")
    if ((stalled >= MAX_STARTS_WITHOUT_PROGRESS)); then
        say "not requeued: $stalled starts without a newer checkpoint; save more often (training.save_steps), ask for more time," \
            "or read $log"
        exit 1
    fi
    job_requeue || true
    exit "$status" # of no matter to a job that was requeued
}
