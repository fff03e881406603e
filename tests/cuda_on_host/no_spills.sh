#!/bin/bash
# Checks the compiler's report on the CUDA kernels: no kernel keeps registers or arrays in local memory (spills), for any of
# the architectures that the objects were built for.
#
#   tests/cuda_on_host/no_spills.sh CUOBJDUMP "ARCHITECTURE..." OBJECT...
#
# Ends with 77 (skipped) where CUOBJDUMP is not there. First proves on planted reports that it would find a spill.
set -euo pipefail
cuobjdump=$1 architectures=$2
shift 2

# Reads reports of `cuobjdump --dump-resource-usage`; prints the kernels that use local memory, then a summary line.
judge() {
    awk -v architectures="$architectures" '
        # Kernels that may: the double-precision sincos reduces large angles by a table on the stack (once per batch).
        function excepted(kernel) { return kernel ~ /rope_table_kernel/ }
        function value(name) { return match($0, name ":[0-9]+") ? substr($0, RSTART + length(name) + 1, RLENGTH - length(name) - 1) : -1 }
        /^arch = / { architecture = $3 }
        /^ *Function / { kernel = $2; sub(/:$/, "", kernel) }
        /REG:[0-9]/ && kernel != "" {
            ++kernels[architecture]
            stack = value("STACK"); local = value("LOCAL"); registers = value("REG")
            if (stack < 0 || local < 0) { printf "%s %s: the report lacks STACK or LOCAL\n", architecture, kernel; ++bad }
            else if (stack + local > 0 && !excepted(kernel)) {
                printf "%s %s: %d bytes of stack, %d of local memory, %d registers\n", architecture, kernel, stack, local, registers
                ++bad
            }
            if (registers + 0 > most) { most = registers + 0; most_kernel = architecture " " kernel }
            kernel = ""
        }
        END {
            count = split(architectures, wanted, " ")
            for (i = 1; i <= count; ++i)
                if (!kernels[wanted[i]]) { printf "no kernel for %s in the objects\n", wanted[i]; ++bad }
                else printf "%s: %d kernels\n", wanted[i], kernels[wanted[i]]
            printf "most registers: %d (%s)\n", most, most_kernel
            exit bad > 0
        }'
}

# planted EXPECTED-STATUS REPORT
planted() {
    local status=0
    printf '%b' "$2" | architectures=sm_80 judge >/dev/null || status=$?
    if [[ $status != "$1" ]]; then
        echo "the check itself is wrong: status $status for: $2"
        exit 1
    fi
}
sound='arch = sm_80\n Function _Z1k:\n  REG:24 STACK:0 SHARED:0 LOCAL:0\n'
planted 0 "$sound"
planted 0 "$sound"' Function _Z17rope_table_kernelP:\n  REG:20 STACK:40 SHARED:0 LOCAL:0\n'
planted 1 "$sound"' Function _Z1s:\n  REG:255 STACK:8 SHARED:0 LOCAL:0\n'
planted 1 "$sound"' Function _Z1s:\n  REG:255 STACK:0 SHARED:0 LOCAL:16\n'
planted 1 "$sound"' Function _Z1s:\n  REG:255\n'
planted 1 'arch = sm_90a\n Function _Z1k:\n  REG:24 STACK:0 SHARED:0 LOCAL:0\n'

if ! [[ -x $cuobjdump ]]; then
    echo "skipped: cuobjdump is not installed (a part of the CUDA toolkit: package cuda-cuobjdump)"
    exit 77
fi
for object in "$@"; do "$cuobjdump" --dump-resource-usage "$object"; done | judge
