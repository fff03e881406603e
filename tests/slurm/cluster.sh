# shellcheck shell=bash
# A SLURM of one machine, for a test: munged, slurmctld and slurmd of the Debian packages, with their own key, ports and folders
# in $cluster, so that a SLURM which the machine may have is neither used nor disturbed. Everything started here is known by its
# process id and ended by it.
cluster=''
# slurmctld, slurmd: nothing else listens here.
cluster_port=$((20000 + $$ % 20000))
daemons=()

# What is missing for a cluster, as one line; empty: nothing.
cluster_lacks() {
    local program
    for program in munged slurmctld slurmd sbatch srun scontrol scancel squeue; do
        [[ -n $(PATH=$PATH:/usr/sbin:/sbin command -v $program) ]] ||
            { echo "$program is missing (apt-get install slurm-wlm munge)" && return; }
    done
    (($(id -u) == 0)) || echo "slurmd must be started by root"
}

# The machine is said to have more CPUs than it has: what is tested is not its speed. cred_expire is also the time that a
# requeued job waits, 2 minutes by default. The times of the scheduler are those that let a test end soon.
cluster_configure() {
    local host
    host=$(hostname -s)
    cluster=$(mktemp -d /tmp/slurm-XXXXXX) # names of sockets are short
    mkdir -p "$cluster/spool" "$cluster/state"
    export SLURM_CONF=$cluster/slurm.conf
    cat >"$SLURM_CONF" <<CONFIG
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$cluster_port
SlurmdPort=$((cluster_port + 1))
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$cluster/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=200000
ReturnToService=2
KillWait=5
MailProg=/bin/true
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.log
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000 Gres=gpu:16 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONFIG
    # GPUs are files to SLURM: jobs get CUDA_VISIBLE_DEVICES as on a real one.
    touch "$cluster"/gpu{0..15}
    echo "Name=gpu File=$cluster/gpu[0-15]" >"$cluster/gres.conf"
    # Newer ones look for control groups even where nothing is asked of them.
    if [[ $(/usr/sbin/slurmd -V | grep -oE '[0-9]+' | head -n 1) -ge 23 ]]; then
        echo "CgroupPlugin=disabled" >"$cluster/cgroup.conf"
    fi
}

# cluster_daemon NAME COMMAND...: in the foreground of its own log.
cluster_daemon() {
    local name=$1
    shift
    "$@" </dev/null >"$cluster/$name.out" 2>&1 &
    daemons+=($!)
}

cluster_start() {
    local PATH=$PATH:/usr/sbin:/sbin _
    cluster_configure
    (umask 077 && head -c 1024 /dev/urandom >"$cluster/munge.key")
    cluster_daemon munged munged --foreground --force --key-file="$cluster/munge.key" \
        --socket="$cluster/munge.socket" --pid-file="$cluster/munged.pid" \
        --log-file="$cluster/munged.log" --seed-file="$cluster/munged.seed" --num-threads=2
    for _ in {1..50}; do
        [[ -S $cluster/munge.socket ]] && break
        sleep 0.1
    done
    cluster_daemon slurmctld slurmctld -D -c
    cluster_daemon slurmd slurmd -D -c
    for _ in {1..200}; do
        [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]] && return
        sleep 0.1
    done
    tail -n 30 "$cluster"/*.log "$cluster"/*.out >&2
    echo "the cluster does not come up" >&2
    return 1
}

# Jobs first: their steps are no children of ours.
cluster_stop() {
    local daemon _
    ((${#daemons[@]})) || return 0
    scancel --user=root --full --signal=KILL >/dev/null 2>&1 || true
    scancel --user=root >/dev/null 2>&1 || true
    for _ in {1..100}; do
        [[ -z $(squeue --noheader --states=running,completing 2>/dev/null) ]] && break
        sleep 0.1
    done
    for daemon in "${daemons[@]}"; do
        kill -TERM "$daemon" 2>/dev/null || true
    done
    for daemon in "${daemons[@]}"; do
        for _ in {1..50}; do
            kill -0 "$daemon" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    done
    daemons=()
    rm -rf "${cluster:?}"
}
