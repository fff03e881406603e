#!/usr/bin/env bash
# Runs every check that needs a GPU and prints one table.
#
#   bash tests/gpu.sh [--build DIR] [--output FILE] [--bench] [--sanitizer-seconds N]
#
# DIR (or GPU_BUILD) is a build folder with gpu/test_ops_cuda in it, made here or carried from another machine; without it
# the GPU tests are built in build-gpu/. Rows of the whole program need DIR/adamem, and mpirun (DIR/mpirun, or any), those of
# the goldens DIR/gpu/parity_gpu. The build's target gpu_suite puts all of them into one tarball: unpacked on a GPU machine, it
# needs CUDA's libraries and nothing else, and is run by its own gpu.sh, with the same options.
# The table also goes to FILE (default gpu-result.txt) row by row, below what was tested where; at the end come the seconds
# that each part took, and with --bench the tables of DIR/gpu/bench_*. Each tool of compute-sanitizer may take N seconds
# (default 600).
# Exit status: 0 all passed, or no GPU is present (said as NOT RUN); 1 a check failed, or did not run without saying why.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${GPU_BUILD:-}
output=gpu-result.txt
bench=
sanitizer_seconds=600
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:?--build needs a folder} && shift 2 ;;
    --output) output=${2:?--output needs a file} && shift 2 ;;
    --bench) bench=1 && shift ;;
    --sanitizer-seconds) sanitizer_seconds=${2:?--sanitizer-seconds needs a number} && shift 2 ;;
    *) echo "gpu.sh: unknown option $1 (known: --build, --output, --bench, --sanitizer-seconds)" >&2 && exit 2 ;;
    esac
done

no_gpu() {
    echo "NOT RUN: no GPU: $1"
    exit 0
}
compgen -G '/dev/nvidia[0-9]*' >/dev/null || nvidia-smi -L >/dev/null 2>&1 || no_gpu "no NVIDIA device on this machine"

if [ -z "$build" ]; then
    build=$root/build-gpu
    PATH=$PATH:/usr/local/cuda/bin
    if ! cmake -S "$root/tests/cuda" -B "$build" || ! cmake --build "$build" --parallel; then
        echo "gpu.sh: the build failed" >&2
        exit 1
    fi
fi
programs=$build/gpu
for program in test_device_cuda test_attention_cuda test_ops_cuda; do
    [ -x "$programs/$program" ] || { echo "gpu.sh: $programs/$program is missing: build it first" >&2 && exit 1; }
done

# What CUDA brings is looked for by the dynamic linker, and where Python packages have it.
wheels=$(python3 -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2>/dev/null) || wheels=
linked=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null) || linked=
for library in "$(grep -ao 'libcublasLt\.so\.[0-9]*' "$programs/test_ops_cuda" | head -n 1)" libcudnn.so.9 libnccl.so.2; do
    if [ -z "$library" ] || grep -qF "$library" <<<"$linked"; then continue; fi
    IFS=: read -r -a folders <<<"${LD_LIBRARY_PATH:-}"
    while IFS= read -r wheel; do
        [ -n "$wheel" ] && for folder in "$wheel"/*/lib; do folders+=("$folder"); done
    done <<<"$wheels"
    for folder in "${folders[@]}"; do
        [ -e "$folder/$library" ] || continue
        export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
        export ADAMEM_CUDA_LIBRARY_PATH=${ADAMEM_CUDA_LIBRARY_PATH:+$ADAMEM_CUDA_LIBRARY_PATH:}$folder # for a bundle's adamem
        break
    done
done
missing=$(LD_TRACE_LOADED_OBJECTS=1 "$programs/test_ops_cuda" 2>/dev/null | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | paste -sd' ')
if [ -n "$missing" ]; then
    echo "gpu.sh: not found: $missing: set LD_LIBRARY_PATH to the folder that has it" >&2
    exit 1
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failures=0
table=$logs/table

# row CHECK CASES LARGEST_ERROR RESULT [REASON]; a case runs over all shapes, the error is a share of the allowed one
row() { printf '%-34s %6s %12s  %-8s %s\n' "$1" "$2" "$3" "$4" "${5:-}" | tee -a "$table" "$output"; }
fail_row() { row "$@" && failures=$((failures + 1)); }
count() { grep -c -- "$1" "$2" || true; }
# done_with NAME: notes the seconds since the last part ended.
part_began=$SECONDS
done_with() { printf 'seconds: %-32s %6d\n' "$1" $((SECONDS - part_began)) >>"$logs/seconds" && part_began=$SECONDS; }

# What was tested, where. An unpacked bundle may lie in somebody's checkout: its own word goes first.
commit() {
    if [ -f "$root/COMMIT" ]; then cat "$root/COMMIT" && return; fi
    echo "$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)$(git -C "$root" diff --quiet HEAD 2>/dev/null || echo ' with changes')"
}
driver() { sed -n 's/^NVRM version: .* \([0-9][0-9.]*[0-9]\)  .*/\1/p' /proc/driver/nvidia/version 2>/dev/null | head -n 1; }
heading() {
    echo "commit: $(commit)"
    for program in "$programs/test_ops_cuda" "$build/libexec/adamem" "$build/adamem"; do
        [ -f "$program" ] && echo "binary: $(sha256sum "$program" | cut -c1-64) ${program#"$build"/}"
    done
    echo "gpu:    $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null ||
        echo "$(sed -n 's/^GPU: //p' "$logs/device"), driver $(driver)")"
    echo "date:   $(date -u +%Y-%m-%dT%H:%M:%SZ)"
}

"$programs/test_device_cuda" >"$logs/device" 2>&1
status=$?
reason=$(sed -n 's/^no GPU: //p' "$logs/device")
[ -n "$reason" ] && no_gpu "$reason"
heading | tee "$output"
row check cases "of allowed" result reason
if [ $status -eq 0 ]; then
    row device "$(count '^\[       OK' "$logs/device")" - PASS
else
    fail_row device "$(count '^\[  FAILED' "$logs/device")" - FAIL "$(grep -m1 -E 'ERROR|rror:|!=' "$logs/device" | cut -c1-100)"
    cat "$logs/device" >&2
fi

done_with device

"$programs/test_attention_cuda" >"$logs/attention" 2>&1
status=$?
if [ $status -eq 0 ]; then
    row "attention engines agree" "$(count '^\[       OK' "$logs/attention")" - PASS
else
    fail_row "attention engines agree" "$(count '^\[  FAILED' "$logs/attention")" - FAIL \
        "$(grep -m1 -E 'ERROR|differ|!=' "$logs/attention" | cut -c1-120)"
    cat "$logs/attention" >&2
fi

"$programs/test_ops_cuda" cudnn >"$logs/cudnn" 2>&1
status=$?
engines=$(sed -nE 's/^.*attention (forward|backward): (cuDNN.*)$/\1 \2/p' "$logs/cudnn" | sort -u | paste -sd';')
if [ $status -eq 0 ]; then
    error=$(awk '$1 == "max_error" && $NF > largest { largest = $NF } END { print largest ? largest : "-" }' "$logs/cudnn")
    row "attention by cuDNN" "$(count '^\[       OK' "$logs/cudnn")" "$error" PASS "$engines"
elif reason=$(grep -m1 -oE 'cuDNN is (absent|too old).*|.*without cuDNN.s header' "$logs/cudnn"); then
    row "attention by cuDNN" 0 - "NOT RUN" "$reason"
else
    fail_row "attention by cuDNN" "$(count '^\[  FAILED' "$logs/cudnn")" - FAIL \
        "$(grep -m1 -E 'expected|ERROR|attention: ' "$logs/cudnn" | cut -c1-120)"
    tail -n 60 "$logs/cudnn" >&2
fi

done_with attention

# One row per op: test names begin with the op's name; "max_error NAME SHARE" is the largest error as a share of the allowed one.
"$programs/test_ops_cuda" >"$logs/ops" 2>&1
status=$?
ops=$(sed -nE 's/^\[ RUN +\] ([a-z_]+).*/\1/p' "$logs/ops" | awk '!seen[$0]++')
[ -n "$ops" ] || fail_row ops 0 - FAIL "test_ops_cuda ran no test (exit status $status)"
for op in $ops; do
    passed=$(count "^\[       OK \] $op\b" "$logs/ops")
    failed=$(grep -E "^\[  FAILED  \] $op\b" "$logs/ops" | sort -u | wc -l)
    skipped=$(count "^\[  SKIPPED \] $op\b" "$logs/ops")
    error=$(awk -v op="$op" '$1 == "max_error" && $2 == op && $NF > largest { largest = $NF } END { print largest ? largest : "-" }' "$logs/ops")
    if [ "$failed" -gt 0 ]; then
        fail_row "$op" "$((passed + failed))" "$error" FAIL "$(grep -m1 "^.*$op.*expected" "$logs/ops" | cut -c1-120)"
    elif [ "$skipped" -gt 0 ] || [ "$passed" -eq 0 ]; then
        fail_row "$op" "$passed" "$error" "NOT RUN" "skipped $skipped"
    else
        row "$op" "$passed" "$error" PASS
    fi
done
[ $status -eq 0 ] || { failures=$((failures + 1)) && tail -n 60 "$logs/ops" >&2; }

passed=$(count '^\[       OK \] .* by differences' "$logs/ops")
failed=$(grep -E '^\[  FAILED  \] .* by differences' "$logs/ops" | sort -u | wc -l)
if [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]; then
    row "gradients by differences" "$passed" - PASS
else
    fail_row "gradients by differences" "$passed" - FAIL "$failed failed"
fi
if grep -q 'other bits than in run 0' "$logs/ops"; then
    fail_row "ops: same bits when repeated" 0 - FAIL "$(grep -m1 'other bits' "$logs/ops" | cut -c1-120)"
elif [ $status -eq 0 ]; then
    row "ops: same bits when repeated" "$(count '^\[       OK' "$logs/ops")" - PASS "each case runs four times"
fi
done_with ops

# The whole program, where it was built or carried.
[ -x "$build/mpirun" ] && PATH=$build:$PATH
for dtype in float32 bfloat16; do
    if [ ! -x "$build/adamem" ]; then
        row "program $dtype" 0 - "NOT RUN" "$build/adamem is not there: the whole build, or a bundle, has it"
        continue
    fi
    bash "$root/tests/cuda/program.sh" "$build/adamem" "$dtype" >"$logs/program-$dtype" 2>&1
    status=$?
    while IFS= read -r line; do
        name=${line#row: } && result=${name#*: } && name=${name%%: *}
        case $result in
        PASS*) row "$dtype: $name" 1 - PASS "${result#PASS: }" ;;
        'NOT RUN'*) row "$dtype: $name" 0 - "NOT RUN" "${result#NOT RUN: }" ;;
        *) fail_row "$dtype: $name" 1 - FAIL "${result#FAIL: }" ;;
        esac
    done < <(grep '^row: ' "$logs/program-$dtype")
    if [ $status -ne 0 ] && ! grep -q '^row: .*: FAIL' "$logs/program-$dtype"; then
        fail_row "program $dtype" 0 - FAIL "$(tail -n 1 "$logs/program-$dtype" | cut -c1-120)"
    fi
    [ $status -eq 0 ] || tail -n 20 "$logs/program-$dtype" >&2
    done_with "program $dtype"
done
if [ -x "$build/adamem" ]; then
    memory=$(bash "$root/tests/cuda/memory.sh" "$build/adamem" qwen2.5-0.5b 2048 2>&1 | tail -n 1)
    case $memory in
    'row: memory as planned: PASS'*) row "memory as planned" 1 - PASS "${memory#*PASS: }" ;;
    *) fail_row "memory as planned" 1 - FAIL "${memory#*FAIL: }" ;;
    esac
else
    row "memory as planned" 0 - "NOT RUN" "$build/adamem is not there: the whole build, or a bundle, has it"
fi
done_with "memory as planned"

# The goldens of Transformers and PEFT. A bundle's programs find MPI and HDF5 in its lib/, which other programs must not see.
for name in parity invariance steps rules export; do
    if [ ! -x "$programs/parity_gpu" ]; then
        row "goldens: $name" 0 - "NOT RUN" "$programs/parity_gpu is not there: the whole build, or a bundle, has it"
        continue
    fi
    PARITY_DATA=$root/tests/parity/data LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        "$programs/parity_gpu" "$name" >"$logs/parity-$name" 2>&1
    status=$?
    passed=$(count '^\[       OK' "$logs/parity-$name")
    if [ $status -eq 0 ] && [ "$passed" -gt 0 ] && ! grep -q '^\[  SKIPPED' "$logs/parity-$name"; then
        row "goldens: $name" "$passed" - PASS "$(grep -o 'top token.*' "$logs/parity-$name" | tail -n 1)"
    else
        fail_row "goldens: $name" "$(grep '^\[  FAILED  \] test_' "$logs/parity-$name" | sort -u | wc -l)" - FAIL \
            "$(grep -m1 -E 'ERROR|rror:|!=' "$logs/parity-$name" | cut -c1-120)"
        tail -n 40 "$logs/parity-$name" >&2
    fi
done
done_with goldens

# NCCL itself: one rank per GPU.
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
if [ ! -x "$programs/test_nccl" ]; then
    row "NCCL, one rank per GPU" 0 - "NOT RUN" "$programs/test_nccl is not there: the bundle of a build with NCCL has it"
elif ! command -v mpirun >/dev/null; then
    row "NCCL, one rank per GPU" 0 - "NOT RUN" "mpirun is not installed"
elif [ "$gpus" -lt 2 ]; then
    row "NCCL, one rank per GPU" 0 - "NOT RUN" "it needs two GPUs, $gpus here"
else
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        mpirun --oversubscribe --bind-to none -n 2 "$programs/test_nccl" libnccl.so.2 gpu >"$logs/nccl" 2>&1
    if grep -q 'all checks passed on 2 ranks' "$logs/nccl"; then
        row "NCCL, one rank per GPU" 1 - PASS
    elif grep -q 'skipped:' "$logs/nccl"; then
        row "NCCL, one rank per GPU" 0 - "NOT RUN" "$(sed -n 's/.*skipped: *//p' "$logs/nccl" | head -n 1)"
    else
        fail_row "NCCL, one rank per GPU" 1 - FAIL "$(grep -m1 -i error "$logs/nccl" | cut -c1-120)"
    fi
fi
done_with NCCL

# Registers that did not suffice: from the objects, which only a build folder has.
cuobjdump=$(command -v cuobjdump || command -v /usr/local/cuda/bin/cuobjdump || true)
mapfile -t objects < <(find "$build" -path '*adamem_cuda.dir*' -name '*.cu.o' 2>/dev/null)
if [ -z "$cuobjdump" ]; then
    row "no spilled registers" 0 - "NOT RUN" "cuobjdump is not installed"
elif [ ${#objects[@]} -eq 0 ]; then
    row "no spilled registers" 0 - "NOT RUN" "$build holds no objects; ctest -R cuda_no_spills checks them where it was built"
elif spills=$("$root/tests/cuda_on_host/no_spills.sh" "$cuobjdump" "sm_80 sm_90a" "${objects[@]}" 2>&1); then
    row "no spilled registers" ${#objects[@]} - PASS
else
    fail_row "no spilled registers" ${#objects[@]} - FAIL "$(tail -n 1 <<<"$spills" | cut -c1-120)"
fi

sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer || true)
for tool in memcheck racecheck initcheck; do
    if [ -z "$sanitizer" ]; then
        row "compute-sanitizer $tool" 0 - "NOT RUN" "compute-sanitizer is not installed"
        continue
    fi
    timeout "$sanitizer_seconds" "$sanitizer" --tool "$tool" --error-exitcode 99 "$programs/test_ops_cuda" small >"$logs/$tool" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        row "compute-sanitizer $tool" "$(count '^\[       OK' "$logs/$tool")" - PASS
    elif grep -q 'Device not supported' "$logs/$tool"; then
        row "compute-sanitizer $tool" 0 - "NOT RUN" "the tool says: Device not supported"
    elif [ $status -eq 124 ]; then
        row "compute-sanitizer $tool" "$(count '^\[       OK' "$logs/$tool")" - "NOT RUN" "no end within $sanitizer_seconds s"
    else
        fail_row "compute-sanitizer $tool" "$(count '^\[       OK' "$logs/$tool")" - FAIL \
            "$(grep -m1 '========= [A-Z]' "$logs/$tool" | cut -c1-120)"
        grep '=========' "$logs/$tool" | head -n 40 >&2
    fi
done

done_with compute-sanitizer
if grep -Eq ' NOT RUN +$' "$table"; then
    failures=$((failures + 1))
    echo "gpu.sh: a row was not run and does not say why" >&2
fi

{
    echo "failures: $failures"
    cat "$logs/seconds"
    for program in ${bench:+"$programs"/bench_*}; do
        [ -x "$program" ] || continue
        echo "---- ${program##*/}"
        "$program"
    done
} | tee -a "$output"
[ "$failures" -eq 0 ]
