#!/usr/bin/env bash
# LoRA on dialogues, meetings and session memories: short memory summaries.
#
#   sbatch jobs/memory_summary.sh [--set KEY=VALUE]...          from the repository's root, after a build
#   sbatch --nodes=2 --account=ABC jobs/memory_summary.sh       sbatch's own options win over those below
#   CONFIG=my.cfg CONTAINER=image.sif sbatch jobs/memory_summary.sh
#
# Submit it again, or let it requeue itself: it goes on from the newest checkpoint. scancel ID ends it for good.
#SBATCH --job-name=memory_summary
#SBATCH --nodes=1
#SBATCH --gpus-per-node=2       # the recipe's global batch of 12 is 2 micro-batches of 6
#SBATCH --ntasks-per-node=2     # one rank per GPU: the same number
#SBATCH --time=12:00:00        # per start; requeued as often as it takes
##SBATCH --account=ACCOUNT
##SBATCH --partition=PARTITION
#SBATCH --signal=B:USR1@180     # seconds before the time limit: for the step under way and its checkpoint
#SBATCH --requeue
#SBATCH --open-mode=append
CONFIG=${CONFIG:-configs/memory_summary.cfg}
CONTAINER=${CONTAINER:-}         # an image to run in; jobs/common.sh has this and the other variables
. jobs/common.sh
job_run train --config "$CONFIG" "$@"
