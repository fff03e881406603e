#!/bin/bash
# Times one LoRA training step of adamem and of Transformers + PEFT on the CPU in turn, on the same weights, adapter and tokens, and prints the
# ratio of their medians. A ratio counts only if both losses agree. Everything is measured in one run: other work on the machine meets both.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: run.sh --adamem PROGRAM --python PYTHON [options]
  --model DIR       model directory (default: adamem init-model --preset qwen2.5-0.5b, made in the work folder)
  --adapter DIR     PEFT directory (default: r=16 on all seven projections, made by PEFT in the work folder)
  --work DIR        work folder, kept (default: a temporary one, removed)
  --dtype LIST      float32,bfloat16 (default: both)
  --threads N       default: all cores
  --tokens N        tokens of the micro-batch (default 512)
  --sequences N     of tokens/N each, packed (default 1)
  --rounds N        turns of each program (default 3)
  --steps N         timed steps a turn (default 3)
PYTHON needs torch, transformers and peft: tests/parity/requirements.txt.
USAGE
}

die() {
    echo "run.sh: $*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
adamem='' python='' model='' adapter='' work='' dtypes='float32,bfloat16'
threads=$(nproc) tokens=512 sequences=1 rounds=3 steps=3
while [ $# -gt 0 ]; do
    if [ "$1" = --help ]; then
        usage
        exit 0
    fi
    [ $# -ge 2 ] || die "$1 needs a value (see --help)"
    case $1 in
        --adamem) adamem=$2 ;;
        --python) python=$2 ;;
        --model) model=$2 ;;
        --adapter) adapter=$2 ;;
        --work) work=$2 ;;
        --dtype) dtypes=$2 ;;
        --threads) threads=$2 ;;
        --tokens) tokens=$2 ;;
        --sequences) sequences=$2 ;;
        --rounds) rounds=$2 ;;
        --steps) steps=$2 ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift 2
done
[ -n "$adamem" ] || die "--adamem PROGRAM is missing"
[ -x "$adamem" ] || die "$adamem is not a program"
[ -n "$python" ] || python=$(command -v python3) || die "no Python found: this comparison needs one with torch, transformers and peft"
command -v "$python" >/dev/null || die "$python is not a program: this comparison needs Python with torch, transformers and peft"
"$python" -c 'import torch, transformers, peft' 2>/dev/null ||
    die "$python lacks torch, transformers or peft: install tests/parity/requirements.txt and name that Python with --python"
export PYTHONDONTWRITEBYTECODE=1

if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
# A result left by an earlier run must not be counted.
rm -f "$work"/ours.*.json "$work"/peer.*.json
if [ -z "$model" ]; then
    model=$work/model
    [ -f "$model/config.json" ] || "$adamem" init-model --preset qwen2.5-0.5b --seed 42 --output "$model" >&2
fi
if [ -z "$adapter" ]; then
    adapter=$work/adapter
    [ -f "$adapter/adapter_config.json" ] || "$python" "$here/peer_step.py" --model "$model" --make-adapter "$adapter" --rank 16 2>/dev/null
fi
read -r rank alpha < <("$python" -c 'import json, sys; c = json.load(open(sys.argv[1])); print(c["r"], float(c["lora_alpha"]))' "$adapter/adapter_config.json")
targets=$("$python" -c 'import json, sys; print(json.dumps(sorted(json.load(open(sys.argv[1]))["target_modules"])))' "$adapter/adapter_config.json")

# Every token is a label: the largest share of work in the head, where the peer is at its best.
"$python" - "$model/config.json" "$tokens" "$sequences" >"$work/tokens.jsonl" <<'TOKENS'
import json, random, sys
vocabulary = json.load(open(sys.argv[1]))["vocab_size"]
tokens, sequences = int(sys.argv[2]), int(sys.argv[3])
generator = random.Random(42)
for _ in range(sequences):
    ids = [generator.randrange(min(vocabulary, 151643)) for _ in range(tokens // sequences)]
    print(json.dumps({"input_ids": ids, "labels": ids}))
TOKENS

write_config() { # dtype
    cat >"$work/bench.$1.cfg" <<CONFIG
run = { output_dir = "$work/run.$1"; seed = 42; backend = "cpu"; threads = $threads; };
model = { path = "$model"; dtype = "$1"; };
lora = { r = $rank; lora_alpha = $alpha; lora_dropout = 0.0; target_modules = $targets; init_from = "$adapter"; };
data = { train = ( { path = "$work/tokens.jsonl"; format = "tokens"; } ); shuffle = false; max_length = $((tokens / sequences)); cache_dir = "$work/cache"; };
training = { max_steps = 1000; per_device_train_batch_size = $sequences; global_batch_size = $sequences; learning_rate = 1e-9;
             lr_scheduler_type = "constant"; weight_decay = 0.0; max_grad_norm = 1.0; };
CONFIG
}

run_ours() { # dtype output steps
    "$adamem" bench --config "$work/bench.$1.cfg" --steps "$3" >"$2"
}

# `kept` tells the C library to keep freed memory: the peer's large temporaries then do not fault their pages in anew at every step.
run_peer() { # variant allocator output steps
    local -a settings=()
    if [ "$2" = kept ]; then
        settings=(MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=67108864)
    fi
    env "${settings[@]}" OMP_NUM_THREADS="$threads" "$python" "$here/peer_step.py" --model "$model" --adapter "$adapter" \
        --input "$work/tokens.jsonl" --variant "$1" --threads "$threads" --steps "$4" >"$3" 2>"$work/peer.log" || {
        cat "$work/peer.log" >&2
        die "the peer failed ($1)"
    }
}

for dtype in ${dtypes//,/ }; do
    case $dtype in
        float32) variants='float32' ;;
        bfloat16) variants='bfloat16-adapters-bfloat16 bfloat16-adapters-float32 bfloat16-autocast' ;;
        *) die "unknown dtype $dtype" ;;
    esac
    write_config "$dtype"
    for variant in $variants; do
        for allocator in plain kept; do
            echo "choosing the peer's fastest form: $variant, allocator $allocator" >&2
            run_peer "$variant" "$allocator" "$work/peer.$dtype.choice.$variant.$allocator.json" 2
        done
    done
    read -r variant allocator < <("$python" "$here/summarize.py" fastest "$work" "$dtype")
    for ((round = 1; round <= rounds; round++)); do
        echo "$dtype, round $round of $rounds: adamem, then the peer ($variant, allocator $allocator)" >&2
        run_ours "$dtype" "$work/ours.$dtype.round.$round.json" "$steps"
        run_peer "$variant" "$allocator" "$work/peer.$dtype.round.$round.json" "$steps"
    done
done
"$python" "$here/summarize.py" table "$work" "$tokens"
