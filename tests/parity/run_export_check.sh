#!/usr/bin/env bash
# Trains a little with the program, exports, and lets PEFT and Transformers load the result: logits within 1e-5 of the
# program's own. For the nightly run; needs a Python with requirements.txt.
#
#   run_export_check.sh --adamem PROGRAM --python PYTHON [--keep]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
adamem='' python='' keep=''
while (($#)); do
    case $1 in
    --adamem) adamem=$(realpath "${2:?--adamem needs a program}") && shift 2 ;;
    --python) python=$(command -v "${2:?--python needs an interpreter}") && shift 2 ;;
    --keep) keep=1 && shift ;;
    *) echo "usage: run_export_check.sh --adamem PROGRAM --python PYTHON [--keep]" >&2 && exit 2 ;;
    esac
done
[[ -n $adamem && -n $python ]] || { echo "run_export_check.sh: --adamem and --python are needed" >&2 && exit 2; }
scratch=$(mktemp -d)
if [[ -n $keep ]]; then
    echo "files stay in $scratch"
else
    trap 'rm -rf "$scratch"' EXIT
fi

# One case: base model, input lines, extra configuration for lora and training.
check() {
    local name=$1 base=$2 lines=$3 dtype=$4
    shift 4
    echo "$name"
    "$adamem" train --config /dev/stdin --set "model.path=$base" --set "model.dtype=$dtype" \
        --set "run.output_dir=$scratch/$name/run" --set training.max_steps=8 "$@" 2>"$scratch/log" <<CONFIG || { cat "$scratch/log" >&2 && exit 1; }
run = { backend = "cpu"; threads = 2; };
data = { train = ( { path = "$lines"; format = "tokens"; } ); max_zero_label_fraction = 1.0; };
training = { per_device_train_batch_size = 2; learning_rate = 5e-3; };
CONFIG
    local checkpoint=$scratch/$name/run/final.h5
    "$adamem" export --checkpoint "$checkpoint" --format peft --output "$scratch/$name/peft" 2>/dev/null
    "$adamem" export --checkpoint "$checkpoint" --format merged --dtype float32 --output "$scratch/$name/merged" 2>/dev/null
    "$adamem" evaluate --model "$base" --adapter "$scratch/$name/peft" --input "$lines" --set model.dtype=float32 \
        --set run.backend=cpu --logits "$scratch/$name/logits.safetensors" >"$scratch/$name/evaluation.json" 2>/dev/null
    "$python" "$here/check_export.py" --base "$base" --peft "$scratch/$name/peft" --merged "$scratch/$name/merged" \
        --input "$lines" --logits "$scratch/$name/logits.safetensors"
}

# Trained base tensors travel in the merged model only; its logits are the program's on that model.
check_trained_base() {
    local name=trained_base base=$here/data/untied_h64 lines=$here/data/untied_h64/batch.jsonl
    echo "$name"
    "$adamem" train --config /dev/stdin 2>"$scratch/log" <<CONFIG || { cat "$scratch/log" >&2 && exit 1; }
run = { backend = "cpu"; threads = 2; output_dir = "$scratch/$name/run"; };
model = { path = "$base"; dtype = "float32"; trainable = [ "." ]; };
data = { train = ( { path = "$lines"; format = "tokens"; } ); max_zero_label_fraction = 1.0; };
training = { max_steps = 8; per_device_train_batch_size = 2; learning_rate = 1e-3; };
CONFIG
    "$adamem" export --checkpoint "$scratch/$name/run/final.h5" --format merged --output "$scratch/$name/merged" 2>/dev/null
    "$adamem" evaluate --model "$scratch/$name/merged" --input "$lines" --set model.dtype=float32 --set run.backend=cpu \
        --logits "$scratch/$name/logits.safetensors" >"$scratch/$name/evaluation.json" 2>/dev/null
    "$python" "$here/check_export.py" --base "$base" --merged "$scratch/$name/merged" --input "$lines" \
        --logits "$scratch/$name/logits.safetensors"
}

"$adamem" init-model --preset tiny --output "$scratch/tiny" --set torch_dtype=float32 --set vocab_size=256 2>/dev/null
check tied_all_linear "$here/data/tied_h64" "$here/data/tied_h64/batch.jsonl" float32 --set 'lora.target_modules=["all-linear"]'
check untied_rslora_rank_pattern "$here/data/untied_h128" "$here/data/untied_h128/batch.jsonl" float32 \
    --set 'lora.target_modules=["q_proj","v_proj","up_proj","down_proj"]' --set lora.use_rslora=true --set lora.lora_alpha=16 \
    --set 'lora.rank_pattern=({pattern="layers.0.self_attn.q_proj";r=2;lora_alpha=6.0;},{pattern="layers.1.mlp.(up|down)_proj";r=5;lora_alpha=7.0;})'
check tiny_bfloat16 "$scratch/tiny" "$here/data/train20/train.jsonl" bfloat16 --set 'lora.target_modules=["all-linear"]' \
    --set lora.lora_dropout=0.5
check_trained_base
echo "all exports agree"
