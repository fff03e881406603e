#!/bin/bash
# Checks the include directions of DESIGN.md: no arrow runs up, and each foreign library stays in its room.
#
#   tests/include_directions.sh [ROOT]
#
# Prints every violation as FILE:LINE: WHY and fails. First proves on planted violations that it would find them.
set -euo pipefail
root=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}

# Reads the sources of the folder it stands in; prints violations.
violations() {
    local folders=() folder
    for folder in io kernels model dist trainer tests; do [[ -d $folder ]] && folders+=("$folder"); done
    # shellcheck disable=SC2016 # the dollar signs are awk's
    find "${folders[@]}" -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.hpp' \) -print0 |
        sort -z | xargs -0 -r awk '
        BEGIN {
            # Folders of the project that a folder may include; "base" is the part of io/ that knows no data.
            base = "io/(status|log|random|buffer|file|json_value)\\."
            may["io"] = "^io/"
            may["kernels"] = "^(kernels/|" base ")"
            may["model"] = "^(model|kernels|io)/"
            may["dist"] = "^(dist/|kernels/|" base ")"
            may["trainer"] = "^(trainer|model|dist|kernels|io)/"
            may["tests"] = "^(tests|trainer|model|dist|kernels|io)/"
            # Libraries: headers, files that may include them, in words.
            library("^mpi[^/]*\\.h$", "^dist/", "MPI belongs in dist/")
            library("^nccl[^/]*\\.h$", "^(dist/|tests/nccl_stand_in/)", "NCCL belongs in dist/")
            library("^(cuda|cublas|cudnn|curand|nvtx|nvml|cub/|mma\\.h|cooperative_groups)",
                    "^(kernels/cuda/|dist/communicator_nccl\\.c$|tests/)", "CUDA belongs in kernels/cuda/ and dist/communicator_nccl.c")
            library("^(hdf5|H5|libconfig|jansson|pcre2|utf8proc|zlib|zstd)", "^(io/|tests/)",
                    "HDF5, libconfig, jansson, PCRE2, utf8proc, zlib and zstd belong in io/")
            library("^(dnnl|oneapi/)", "^(kernels/cpu/|kernels/[^/]*\\.c$|tests/)", "oneDNN belongs in kernels/cpu/")
        }
        function library(headers, files, why) { ++libraries; header[libraries] = headers; room[libraries] = files; reason[libraries] = why }
        function report(why) { printf "%s:%d: includes %s: %s\n", FILENAME, FNR, target, why }
        /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
            target = $0
            sub(/^[ \t]*#[ \t]*include[ \t]*[<"]/, "", target)
            sub(/[>"].*/, "", target)
            folder = FILENAME
            sub(/\/.*/, "", folder)
            if (target ~ /(^|\/)\.\.\//) report("name files from the root of the project")
            else if (target ~ /^(io|kernels|model|dist|trainer|tests)\// && target !~ may[folder])
                report(folder "/ may not include it (DESIGN.md, The house)")
            for (i = 1; i <= libraries; ++i)
                if (target ~ header[i] && FILENAME !~ room[i]) report(reason[i])
        }'
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# planted FILE INCLUDE EXPECTED-COUNT: a project of one file with one include.
planted() {
    local tree=$scratch/tree found
    rm -rf "$tree"
    mkdir -p "$tree/$(dirname "$1")"
    printf '#include <stdio.h>\n%s\n' "$2" >"$tree/$1"
    found=$(cd "$tree" && violations | { grep -c "^$1:2: " || true; })
    if [[ $found != "$3" ]]; then
        echo "self-test: $1 with '$2' gave $found violations, expected $3" >&2
        exit 1
    fi
}

planted io/a.c '#include "kernels/ops.h"' 1
planted io/a.c '#include "model/tape.h"' 1
planted kernels/a.c '#include "model/tape.h"' 1
planted kernels/cpu/a.c '#include "dist/sampler.h"' 1
planted kernels/cuda/a.cu '#include "trainer/plan.h"' 1
planted kernels/a.c '#include "io/dataset.h"' 1
planted model/a.h '#include "dist/communicator.h"' 1
planted model/a.c '  #  include <trainer/plan.h>' 1
planted model/a.c '#include "../trainer/plan.h"' 1
planted dist/a.c '#include "model/tape.h"' 1
planted trainer/a.c '#include "tests/unit/a.h"' 1
planted trainer/a.c '#include <mpi.h>' 1
planted tests/dist/a.c '#include <mpi.h>' 1
planted kernels/cuda/a.cu '#include <nccl.h>' 1
planted tests/nccl/a.c '#include <nccl.h>' 1
planted kernels/device.c '#include <cuda_runtime.h>' 1
planted dist/launch.c '#include <cuda_runtime_api.h>' 1
planted model/a.c '#include <cublasLt.h>' 1
planted trainer/a.c '#include <hdf5.h>' 1
planted trainer/a.c '#include <jansson.h>' 1
planted model/a.c '#include <dnnl.h>' 1
planted kernels/cuda/a.cu '#include <oneapi/dnnl/dnnl.h>' 1

planted io/a.c '#include <hdf5.h>' 0
planted io/a.c '#include "io/status.h"' 0
planted io/a.c '// #include "trainer/plan.h"' 0
planted kernels/a.c '#include "io/random.h"' 0
planted kernels/cpu/a.c '#include <dnnl.h>' 0
planted kernels/cuda/a.cu '#include <cudnn.h>' 0
planted kernels/cuda/a.cu '#include "common.cuh"' 0
planted model/a.c '#include "kernels/ops.h"' 0
planted dist/a.c '#include <mpi.h>' 0
planted dist/communicator_nccl.c '#include <cuda_runtime_api.h>' 0
planted trainer/commands/a.c '#include "dist/sampler.h"' 0
planted tests/unit/a.c '#include "trainer/plan.h"' 0

cd "$root"
found=$(violations)
if [[ -n $found ]]; then
    printf '%s\n' "$found"
    exit 1
fi
echo "include directions: $(find io kernels model dist trainer tests -name '*.[ch]' -o -name '*.cu' 2>/dev/null | wc -l) files, no violation"
