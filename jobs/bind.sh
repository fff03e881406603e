#!/usr/bin/env bash
# Binds one rank to the processors and the memory beside its GPU and becomes the program: jobs/bind.sh PROGRAM [OPTION]...
# Rank r of a machine takes its GPU number r (the program chooses it by the same number); where there is no GPU, or the machine
# does not say what is near it, nothing is bound. OMP_NUM_THREADS, unless set: the processors shared among the ranks.
set -euo pipefail
sysfs=${SYSFS:-/sys} # elsewhere in tests

local_rank=${SLURM_LOCALID:-}
ranks=${SLURM_NTASKS_PER_NODE:-}
if [[ -n ${OMPI_COMM_WORLD_LOCAL_RANK:-} ]]; then # of mpirun, which may itself run inside a SLURM job
    local_rank=$OMPI_COMM_WORLD_LOCAL_RANK
    ranks=$OMPI_COMM_WORLD_LOCAL_SIZE
fi
# SLURM_STEP_TASKS_PER_NODE is "4(x2),2": of all nodes; the greatest is good enough for a number of threads.
[[ -n $ranks ]] || ranks=$(tr ',' '\n' <<<"${SLURM_STEP_TASKS_PER_NODE:-1}" | sed 's/(.*//' | sort -n | tail -n 1)

# expand LIST: "0-2,5" one number per line, sorted as text.
expand() {
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done | sort
}

# The PCI address of GPU number $local_rank among those that the job may use.
gpu_address() {
    command -v nvidia-smi >/dev/null || return 1
    local number=$local_rank
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
        number=$(cut -d, -f"$((local_rank + 1))" <<<"$CUDA_VISIBLE_DEVICES")
    fi
    # nvidia-smi writes an 8-digit domain, the kernel a 4-digit one in small letters.
    nvidia-smi --query-gpu=pci.bus_id --format=csv,noheader --id="$number" 2>/dev/null |
        tr 'A-F' 'a-f' | sed -n 's/^0000\([0-9a-f:.]*\)$/\1/p' | grep .
}

binding=()
if [[ -n $local_rank ]] && address=$(gpu_address) && [[ -r $sysfs/bus/pci/devices/$address/local_cpulist ]]; then
    near=$(<"$sysfs/bus/pci/devices/$address/local_cpulist")
    allowed=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
    mine=$(comm -12 <(expand "$near") <(expand "$allowed") | sort -n | paste -sd,)
    if [[ -n $mine ]] && command -v taskset >/dev/null; then
        binding=(taskset --cpu-list "$mine") # memory follows: it comes from beside the processor that first touches it
    fi
fi
if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    processors=$(nproc)
    export OMP_NUM_THREADS=$((processors > ranks ? processors / ranks : 1))
fi
exec "${binding[@]}" "$@"
