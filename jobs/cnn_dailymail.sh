#!/usr/bin/env bash
# LoRA on CNN/DailyMail: summaries of news.
#
#   sbatch jobs/cnn_dailymail.sh [--set KEY=VALUE]...          from the repository's root, after a build
#   sbatch --nodes=2 --account=ABC jobs/cnn_dailymail.sh       sbatch's own options win over those below
#   CONFIG=my.cfg CONTAINER=image.sif sbatch jobs/cnn_dailymail.sh
#
# Submit it again, or let it requeue itself: it goes on from the newest checkpoint. scancel ID ends it for good.
#SBATCH --job-name=cnn_dailymail
#SBATCH --nodes=1
#SBATCH --gpus-per-node=3       # the recipe's global batch of 12 is 3 micro-batches of 4
#SBATCH --ntasks-per-node=3     # one rank per GPU: the same number
#SBATCH --time=24:00:00        # per start; requeued as often as it takes
##SBATCH --account=ACCOUNT
##SBATCH --partition=PARTITION
#SBATCH --signal=B:USR1@180     # seconds before the time limit: for the step under way and its checkpoint
#SBATCH --requeue
#SBATCH --open-mode=append
CONFIG=${CONFIG:-configs/cnn_dailymail.cfg}
CONTAINER=${CONTAINER:-}         # an image to run in; jobs/common.sh has this and the other variables
. jobs/common.sh
job_run train --config "$CONFIG" "$@"
