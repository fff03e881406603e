#!/bin/bash
# jobs/bind.sh on a machine with GPUs that is made of files: a rank is bound to the processors beside its own GPU, of which the
# job may use only some; where nothing is known it is not bound; threads are shared out.
#
#   tests/slurm/bind.sh
set -euo pipefail
bind=$(cd "$(dirname "$0")/../../jobs" && pwd)/bind.sh
scratch=$(mktemp -d "${TMPDIR:-/tmp}/bind-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*" >&2 && exit 1; }

mkdir "$scratch/bin"
export SYSFS=$scratch/sys PATH=$scratch/bin:$PATH
cat >"$scratch/bin/nvidia-smi" <<'SMI'
#!/bin/bash
addresses=(00000000:07:00.0 00000000:0F:00.0 00000000:B7:00.0)
for word in "$@"; do [[ $word != --id=* ]] || id=${word#--id=}; done
[[ -n ${addresses[${id:-0}]:-} ]] && echo "${addresses[${id:-0}]}"
SMI
# shellcheck disable=SC2016 # for the stand-in's shell
printf '#!/bin/bash\necho "bound $2"\nshift 2\nexec "$@"\n' >"$scratch/bin/taskset"
chmod +x "$scratch"/bin/*
first=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*\([0-9]*\).*/\1/p' /proc/self/status)
near() { mkdir -p "$SYSFS/bus/pci/devices/$1" && echo "$2" >"$SYSFS/bus/pci/devices/$1/local_cpulist"; }
near 0000:07:00.0 "$first,5000-5003"
near 0000:0f:00.0 "5000-5003"

# rank EXPECTED VARIABLE=VALUE...
rank() {
    local expected=$1 got
    shift
    # shellcheck disable=SC2016 # for the inner shell
    got=$(env -u SLURM_LOCALID -u SLURM_NTASKS_PER_NODE -u OMP_NUM_THREADS -u CUDA_VISIBLE_DEVICES "$@" \
        "$bind" bash -c 'echo "threads $OMP_NUM_THREADS $1"' program "an argument" | paste -sd' ')
    [[ $got == "$expected" ]] || fail "$*: \"$got\", not \"$expected\""
}

all=$(nproc)
half=$((all > 2 ? all / 2 : 1))
rank "threads $all an argument"
rank "bound $first threads 1 an argument" SLURM_LOCALID=0 "SLURM_NTASKS_PER_NODE=$all"
rank "bound $first threads 7 an argument" OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2 OMP_NUM_THREADS=7 SLURM_LOCALID=1
rank "bound $first threads $half an argument" SLURM_LOCALID=1 CUDA_VISIBLE_DEVICES=2,0 SLURM_STEP_TASKS_PER_NODE="2(x3),1"
rank "threads $half an argument" SLURM_LOCALID=1 SLURM_NTASKS_PER_NODE=2                   # the job has no processor there
rank "threads $half an argument" SLURM_LOCALID=2 SLURM_NTASKS_PER_NODE=2                   # the machine does not say
rank "threads $half an argument" SLURM_LOCALID=3 SLURM_NTASKS_PER_NODE=2                   # no such GPU: the program's to tell
echo "bind: ok"
