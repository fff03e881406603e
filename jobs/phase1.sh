#!/usr/bin/env bash
# AdaMem, phase 1: the memory learns to stand for a text, from text alone.
#
#   sbatch jobs/phase1.sh [--set KEY=VALUE]...          from the repository's root, after a build
#   sbatch --nodes=2 --account=ABC jobs/phase1.sh       sbatch's own options win over those below
#   CONFIG=my.cfg CONTAINER=image.sif sbatch jobs/phase1.sh
#
# All three phases, one after the other: jobs/adamem_schedule.sh.
#SBATCH --job-name=phase1
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8       # 16 micro-batches of 4: 1, 2, 4, 8 or 16 GPUs have equal shares
#SBATCH --ntasks-per-node=8     # one rank per GPU: the same number
#SBATCH --time=24:00:00        # per start; requeued as often as it takes
##SBATCH --account=ACCOUNT
##SBATCH --partition=PARTITION
#SBATCH --signal=B:USR1@180     # seconds before the time limit: for the step under way and its checkpoint
#SBATCH --requeue
#SBATCH --open-mode=append
CONFIG=${CONFIG:-configs/adamem_phase1.cfg}
CONTAINER=${CONTAINER:-}         # an image to run in; jobs/common.sh has this and the other variables
. jobs/common.sh
job_run train --config "$CONFIG" "$@"
