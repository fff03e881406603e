#!/usr/bin/env bash
# Submits the three phases of AdaMem, each to begin when the one before has come to its end, however often that was requeued. When
# a phase fails those behind it are cancelled; submit this again to go on, phases that are done end at once.
#
#   bash jobs/adamem_schedule.sh [SBATCH OPTION]...     from the repository's root; the options are for all three: --account=ABC
#   sbatch jobs/adamem_schedule.sh [SBATCH OPTION]...   the same, where login nodes should do nothing themselves
#SBATCH --job-name=adamem_schedule
#SBATCH --ntasks=1
#SBATCH --time=5
set -euo pipefail
before=()
for phase in 1 2 3; do
    # Inside a job sbatch would take that job's size over.
    job=$(env -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_NTASKS_PER_NODE -u SLURM_CPUS_PER_TASK -u SLURM_MEM_PER_NODE -u SLURM_MEM_PER_CPU \
        sbatch --parsable "${before[@]}" "$@" "jobs/phase$phase.sh")
    job=${job%%;*} # of several clusters
    echo "phase $phase: job $job${before[0]:+, ${before[0]#--}}"
    before=("--dependency=afterok:$job" --kill-on-invalid-dep=yes)
done
