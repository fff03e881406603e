#!/usr/bin/env bash
# Runs every check that needs a GPU and prints one table.
#
#   bash tests/gpu.sh [--build DIR] [--output FILE] [--bench]
#
# DIR (or GPU_BUILD) is a build folder with gpu/test_ops_cuda in it, made here or carried from another machine; without it
# the GPU tests are built in build-gpu/. Rows of the whole program need DIR/adamem, and mpirun (DIR/mpirun, or any): an
# unpacked bundle has both, and is run by its own gpu.sh. The table also goes to FILE (default gpu-result.txt), below what
# was tested where, with the seconds that each part took; --bench adds the tables of DIR/gpu/bench_*.
# Exit status: 0 all passed, or no GPU is present (said as NOT RUN); 1 a check failed, or did not run without saying why.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${GPU_BUILD:-}
output=gpu-result.txt
bench=
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:?--build needs a folder} && shift 2 ;;
    --output) output=${2:?--output needs a file} && shift 2 ;;
    --bench) bench=1 && shift ;;
    *) echo "gpu.sh: unknown option $1 (known: --build DIR, --output FILE, --bench)" >&2 && exit 2 ;;
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

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failures=0
table=$logs/table

# row CHECK CASES LARGEST_ERROR RESULT [REASON]; a case runs over all shapes, the error is a share of the allowed one
row() { printf '%-34s %6s %12s  %-8s %s\n' "$1" "$2" "$3" "$4" "${5:-}" >>"$table"; }
fail_row() { row "$@" && failures=$((failures + 1)); }
count() { grep -c -- "$1" "$2" || true; }
# done_with NAME: notes the seconds since the last part ended.
part_began=$SECONDS
done_with() { printf 'seconds: %-32s %6d\n' "$1" $((SECONDS - part_began)) >>"$logs/seconds" && part_began=$SECONDS; }

row check cases "of allowed" result reason

"$programs/test_device_cuda" >"$logs/device" 2>&1
status=$?
reason=$(sed -n 's/^no GPU: //p' "$logs/device")
[ -n "$reason" ] && no_gpu "$reason"
if [ $status -eq 0 ]; then
    row device "$(count '^\[       OK' "$logs/device")" - PASS
else
    fail_row device "$(count '^\[  FAILED' "$logs/device")" - FAIL "$(grep -m1 -E 'ERROR|rror:|!=' "$logs/device" | cut -c1-100)"
    cat "$logs/device" >&2
fi

# cuDNN is looked for by the dynamic linker, and where Python packages have it.
if ! ldconfig -p 2>/dev/null | grep -qF libcudnn.so.9; then
    folder=$(python3 -c 'import nvidia.cudnn; print(list(nvidia.cudnn.__path__)[0] + "/lib")' 2>/dev/null)
    [ -d "$folder" ] && export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
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
row "parity goldens on the GPU" 0 - "NOT RUN" "tests/parity reads device memory as the host's: it runs on the CPU and on the emulated GPU"

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
    elif timeout 900 "$sanitizer" --tool "$tool" --error-exitcode 99 "$programs/test_ops_cuda" >"$logs/$tool" 2>&1; then
        row "compute-sanitizer $tool" "$(count '^\[       OK' "$logs/$tool")" - PASS
    elif grep -q 'Device not supported' "$logs/$tool"; then
        row "compute-sanitizer $tool" 0 - "NOT RUN" "the tool says: Device not supported"
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
    echo "commit: $(git -C "$root" rev-parse HEAD 2>/dev/null || cat "$root/COMMIT" 2>/dev/null || echo unknown)$(git -C "$root" rev-parse HEAD >/dev/null 2>&1 && ! git -C "$root" diff --quiet HEAD && echo ' with changes')"
    echo "binary: $(sha256sum "$programs/test_ops_cuda" | cut -c1-64)"
    echo "gpu:    $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || sed -n 's/^GPU: //p' "$logs/device")"
    echo "date:   $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    cat "$table"
    echo "failures: $failures"
    cat "$logs/seconds"
    for program in ${bench:+"$programs"/bench_*}; do
        [ -x "$program" ] || continue
        echo "---- ${program##*/}"
        "$program"
    done
} | tee "$output"
[ "$failures" -eq 0 ]
