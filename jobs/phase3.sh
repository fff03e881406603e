#!/usr/bin/env bash
# AdaMem, phase 3: memory and the decoder's top layers learn together.
#
#   sbatch jobs/phase3.sh [--set KEY=VALUE]...          from the repository's root, after a build
#   sbatch --nodes=2 --account=ABC jobs/phase3.sh       sbatch's own options win over those below
#   CONFIG=my.cfg CONTAINER=image.sif sbatch jobs/phase3.sh
#
# All three phases, one after the other: jobs/adamem_schedule.sh.
#SBATCH --job-name=phase3
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4       # 4 micro-batches of 8: 1, 2 or 4 GPUs have equal shares
#SBATCH --ntasks-per-node=4     # one rank per GPU: the same number
#SBATCH --time=24:00:00        # per start; requeued as often as it takes
##SBATCH --account=ACCOUNT
##SBATCH --partition=PARTITION
#SBATCH --signal=B:USR1@180     # seconds before the time limit: for the step under way and its checkpoint
#SBATCH --requeue
#SBATCH --open-mode=append
CONFIG=${CONFIG:-configs/adamem_phase3.cfg}
CONTAINER=${CONTAINER:-}         # an image to run in; jobs/common.sh has this and the other variables
. jobs/common.sh
job_run train --config "$CONFIG" "$@"
