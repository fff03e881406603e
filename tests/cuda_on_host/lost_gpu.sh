#!/bin/bash
# Two ranks train on emulated GPUs, and that of rank 1 is lost at its N-th call: the job ends within 10 s, non-zero, and says
# which rank and which operation.
#
#   tests/cuda_on_host/lost_gpu.sh ADAMEM_ON_HOST N
set -euo pipefail
adamem=$1
call=$2
dtype=float32
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lost-gpu-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../same_bits/common.sh"
command -v mpirun >/dev/null || { echo "skipped: mpirun is missing (apt-get install openmpi-bin)" && exit 77; }
make_data
make_config
export CUDA_ON_HOST_MEMORY=4096 CUDA_ON_HOST_FAULT="1 $call"
cd "$scratch"
bash "$repository/tests/nccl/fault.sh" none bad 10 \
    'rank 1 failed: .*(uncorrectable ECC error|CUBLAS_STATUS_EXECUTION_FAILED)' \
    mpirun --oversubscribe --bind-to none -n 2 "$adamem" train --config run.cfg --set run.backend=cuda --set run.output_dir=run
