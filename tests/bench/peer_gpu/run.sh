#!/bin/bash
# Compares our LoRA step with Transformers + PEFT on one GPU: both in turn, on the same weights, adapter and tokens, within a time limit.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: run.sh --adamem PROGRAM --output DIR --workload A|B [options]
  --workload A|B    A: Qwen2.5-3B, CNN/DailyMail lengths; B: Qwen2.5-7B, T=4096 packed
  --output DIR      gets DATE-GPU-workload-X.md and .json; to keep them: tests/bench/results
  --python PYTHON   with torch, transformers, peft and accelerate (default: python3)
  --work DIR        weights (6 GB or 15 GB), adapter and logs; kept, and used again (default: a temporary one, removed)
  --minutes N       the whole run ends within N minutes: less is tried, fewer rounds run (default 9)
  --rounds N        most rounds (default 3)
  --device DEVICE   cuda (default) or cpu
  --tiny            tiny shapes, to try the script
  --commit ID       of the program (default: of this checkout)
Exit status: 0 compared; 1 the losses disagree (the ratio is void), a program failed, or the time was too short; 2 wrong use.
USAGE
}

die() {
    echo "run.sh: $*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
adamem='' output='' workload='' python='' work='' minutes=9 rounds=3 device=cuda commit=''
tiny=()
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage && exit 0 ;;
        --tiny) tiny=(--tiny) && shift && continue ;;
    esac
    [ $# -ge 2 ] || die "$1 needs a value (see --help)"
    case $1 in
        --adamem) adamem=$2 ;;
        --output) output=$2 ;;
        --workload) workload=$2 ;;
        --python) python=$2 ;;
        --work) work=$2 ;;
        --minutes) minutes=$2 ;;
        --rounds) rounds=$2 ;;
        --device) device=$2 ;;
        --commit) commit=$2 ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift 2
done
[ -n "$adamem" ] || die "--adamem PROGRAM is missing"
if [ ! -f "$adamem" ] || [ ! -x "$adamem" ]; then die "$adamem is not a program"; fi
[ -n "$output" ] || die "--output DIR is missing"
[[ $workload == [AB] ]] || die "--workload must be A or B"
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "--minutes must be a whole number, at least 1"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds must be a whole number, at least 1"
[ -n "$python" ] || python=python3
command -v "$python" >/dev/null || die "$python is not a program"
"$python" -c 'import torch, transformers, peft, accelerate' 2>/dev/null ||
    die "$python lacks torch, transformers, peft or accelerate: name one that has them with --python"
if [ -z "$commit" ]; then
    commit=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
    git -C "$here" diff --quiet HEAD 2>/dev/null || commit="$commit with changes"
fi
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work" "$output"
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# The peer's allocator in its better setting: lengths vary, and fixed segments would fragment.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

status=0
timeout --kill-after=10 "$((minutes * 60 + 20))" "$python" "$here/compare.py" --adamem "$(realpath "$adamem")" --output "$output" --work "$work" \
    --workload "$workload" --device "$device" --minutes "$minutes" --rounds "$rounds" --commit "$commit" \
    --sha256 "$(sha256sum "$adamem" | cut -c1-64)" ${tiny[@]+"${tiny[@]}"} || status=$?
[ "$status" -ne 124 ] || die "not done after $minutes minutes"
exit "$status"
