#!/bin/bash
# Broken or foreign checkpoints and run folders, export; and errors on two ranks, which are told once. A run that is there
# already is not touched by a refused command.
#
#   tests/bad_input/runs.sh ADAMEM
set -euo pipefail
adamem=$1
# shellcheck source=tests/bad_input/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

accept "a run" "${train[@]}" --set run.output_dir=done --set training.save_steps=1
accept "the run again" "${train[@]}" --set run.output_dir=done --set training.save_steps=1
last=done/checkpoint-2.h5
# A base of the same shape with other weights.
"$adamem" init-model --preset tiny --output other --set hidden_size=128 --set intermediate_size=64 --set num_hidden_layers=2 \
    --set num_attention_heads=2 --set num_key_value_heads=1 --set vocab_size=256 2>/dev/null

# refuse_resume WHAT PATTERN [--set KEY=VALUE]...: for the run that stands, its newest checkpoint or a named one.
refuse_resume() {
    local what=$1 pattern=$2
    shift 2
    refuse "continue: $what" "$last: $pattern" "${train[@]}" --set run.output_dir=done "$@"
    refuse "resume: $what" "$last: $pattern" "${train[@]}" --resume "$last" "$@"
}
refuse_resume "another base" 'was trained on another base model' --set model.path=other
refuse_resume "another rank" 'tensor .*lora_A.* has shape \[4, .*wants \[8, ' --set lora.r=8
refuse_resume "more modules" 'has no tensor .*: the trainable set differs' --set 'model.trainable=["norm"]'
refuse_resume "fewer modules" 'holds [0-9]+ tensors, this configuration trains [0-9]+' --set 'lora.target_modules=["q_proj"]'
refuse "a mistyped model leaves the run" 'nowhere/config.json' "${train[@]}" --set run.output_dir=done --resume none \
    --set model.path=nowhere
printf '{"input_ids":[1,2],"labels":[1,2,3]}\n' >bad.jsonl
refuse "broken data leave the run" 'bad.jsonl:1: ' "${train[@]}" --set run.output_dir=done --resume none \
    --set 'data.train=({path="bad.jsonl";format="tokens";})' --set data.cache_dir=run/cache
refuse "resume: no such file" 'nowhere.h5: cannot' "${train[@]}" --resume nowhere.h5
refuse "resume: a directory" 'done: a directory, not a checkpoint' "${train[@]}" --resume "done"

# checkpoint WHAT PATTERN COMMAND...: a copy of the checkpoint after COMMAND, read by all that reads checkpoints.
checkpoint() {
    local what=$1 pattern=$2
    shift 2
    cp "$last" spoiled.h5
    "$@" spoiled.h5
    refuse "resume: $what" "$pattern" "${train[@]}" --resume spoiled.h5
    refuse "export: $what" "$pattern" export --checkpoint spoiled.h5 --format peft --output new
    refuse "evaluate: $what" "$pattern" evaluate --config good.cfg --checkpoint spoiled.h5 \
        --set 'data.validation=({path="data.jsonl";format="tokens";})'
}
middle() { printf '\377\377\377\377' | dd of="$1" bs=1 seek=$(($(stat -c %s "$1") / 2)) conv=notrunc status=none; }
checkpoint "truncated" '^error: spoiled.h5: ' truncate -s -1000
checkpoint "half" '^error: spoiled.h5: ' truncate -s 20000
checkpoint "empty" '^error: spoiled.h5: the file is empty' truncate -s 0
checkpoint "changed bytes" '^error: spoiled.h5: ' middle
checkpoint "text" '^error: spoiled.h5: not an HDF5 file' cp good.cfg
refuse "inspect: changed bytes" 'spoiled.h5' inspect spoiled.h5
cp "$last" spoiled.h5 && middle spoiled.h5
refuse "inspect: changed bytes" '^error: spoiled.h5: ' inspect spoiled.h5
truncate -s 1000 spoiled.h5
refuse "inspect: truncated" '^error: spoiled.h5: ' inspect spoiled.h5
rm spoiled.h5
refuse "export: no such file" 'nowhere.h5: cannot' export --checkpoint nowhere.h5 --format peft --output new
refuse "export: another base" 'other is not the base model that the checkpoint was trained on' export --checkpoint "$last" \
    --format merged --output new --model other
refuse "export: no such base" 'nowhere' export --checkpoint "$last" --format merged --output new --model nowhere
mkdir full && : >full/file
for format in peft merged; do
    refuse "export $format: output exists" 'full: already exists' export --checkpoint "$last" --format $format --output full
    refuse "export $format: output is a file" 'good.cfg: already exists' export --checkpoint "$last" --format $format \
        --output good.cfg
    refuse "export $format: below a file" 'good.cfg: ' export --checkpoint "$last" --format $format --output good.cfg/new
done
refuse "evaluate: checkpoint of another base" "$last: was trained on another base" evaluate --config good.cfg \
    --checkpoint "$last" --model other --set 'data.validation=({path="data.jsonl";format="tokens";})'
mkdir empty torn
refuse "plot: no metrics" 'empty/metrics.jsonl: cannot' plot empty
: >empty/metrics.jsonl
refuse "plot: empty metrics" 'empty/metrics.jsonl: holds nothing to plot' plot empty
printf 'text\n{"step": 1, "loss": 2.0}\n' >torn/metrics.jsonl
refuse "plot: broken metrics" 'torn/metrics.jsonl:1: ' plot torn
refuse "evaluate: logits below a file" 'good.cfg' evaluate --model model --input data.jsonl --logits good.cfg/logits
refuse "bench: broken data" 'bad.jsonl:1: ' bench --config good.cfg --set 'data.train=({path="bad.jsonl";format="tokens";})'

# on_two_ranks WHAT PATTERN ARGUMENTS...
on_two_ranks() {
    local what=$1 pattern=$2
    shift 2
    check_refusal "two ranks: $what" "$pattern" mpirun --oversubscribe --bind-to none -n 2 "$adamem" "$@"
}
if command -v mpirun >/dev/null; then
    seconds=$((5 * seconds)) # the launcher's own start
    on_two_ranks "sub-command" 'unknown sub-command "trian"' trian
    on_two_ranks "option" 'unknown option --confg' train --confg good.cfg
    on_two_ranks "key" 'lora.rr: unknown key' "${train[@]}" --set lora.rr=4
    on_two_ranks "data" 'bad.jsonl:1: ' "${train[@]}" --set 'data.train=({path="bad.jsonl";format="tokens";})'
    on_two_ranks "model" 'nowhere/config.json: cannot' "${train[@]}" --set model.path=nowhere
    on_two_ranks "checkpoint" "$last: tensor" "${train[@]}" --set run.output_dir=done --set lora.r=8
    on_two_ranks "output" 'good.cfg' "${train[@]}" --set run.output_dir=good.cfg/run --set data.cache_dir=run/cache
    on_two_ranks "logits" '--logits works on one rank' evaluate --model model --input data.jsonl --logits new.safetensors
    on_two_ranks "standard input" 'standard input needs a single rank' evaluate --model model --input - --format tokens
else
    echo "rows with two ranks are left out: mpirun is missing (apt-get install openmpi-bin)"
fi
all_refused "runs"
