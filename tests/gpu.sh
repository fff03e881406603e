#!/usr/bin/env bash
# Runs every check that needs a GPU and prints one table.
#
#   bash tests/gpu.sh [--build DIR] [--output FILE]
#
# DIR (or GPU_BUILD) is a build folder with gpu/test_ops_cuda in it, made here or carried from another machine; without it
# the GPU tests are built in build-gpu/. The table also goes to FILE (default gpu-result.txt), below what was tested where.
# Exit status: 0 all passed, or no GPU is present (said as NOT RUN); 1 a check failed or did not run though a GPU is there.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${GPU_BUILD:-}
output=gpu-result.txt
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:?--build needs a folder} && shift 2 ;;
    --output) output=${2:?--output needs a file} && shift 2 ;;
    *) echo "gpu.sh: unknown option $1 (known: --build DIR, --output FILE)" >&2 && exit 2 ;;
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

{
    echo "commit: $(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)$(git -C "$root" diff --quiet HEAD 2>/dev/null || echo ' with changes')"
    echo "binary: $(sha256sum "$programs/test_ops_cuda" | cut -c1-64)"
    echo "gpu:    $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || sed -n 's/^GPU: //p' "$logs/device")"
    echo "date:   $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    cat "$table"
    echo "failures: $failures"
} | tee "$output"
[ "$failures" -eq 0 ]
