#!/bin/bash
# The multi-objective loss gives the same bits on 1, 2 and 4 ranks, with recomputation or without, in one go or killed between
# two log lines and started again; with all weights 0 it is cross-entropy, bit for bit, also in the log.
#
#   tests/same_bits/loss_terms.sh ADAMEM float32|bfloat16
#
# keep=1 leaves the runs behind.
set -euo pipefail
adamem=$1
dtype=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/loss-terms-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v mpirun >/dev/null || { echo "skipped: mpirun is missing (apt-get install openmpi-bin)" && exit 77; }

# Answers with names and numbers, of different lengths; dialogues with two answers each.
make_answers() {
    "$adamem" init-model --preset tiny --tokenizer "$repository/tests/data/tokenizer-small" --output "$scratch/model" 2>/dev/null
    awk 'BEGIN { for (i = 0; i < 30; ++i) {
        who = substr("Anna Bob CarlaDiego", 5 * (i % 4) + 1, 5)
        sub(/ +$/, "", who)
        tail = i % 3 ? " and then again in " 1900 + 7 * i : ""
        printf "{\"prompt\": \"Who came to town number %d?\\n\", \"completion\": \"it was %s with %d dogs%s.\"}\n", i, who, i, tail
    } }' >"$scratch/pairs.jsonl"
    awk 'BEGIN { for (i = 0; i < 12; ++i)
        printf "{\"messages\": [{\"role\": \"user\", \"content\": \"Where is it?\"}, {\"role\": \"assistant\", \"content\": \"it is in " \
            "Rome, %d km away\"}, {\"role\": \"user\", \"content\": \"And who?\"}, {\"role\": \"assistant\", \"content\": \"nobody " \
            "there\"}]}\n", 3 * i
    }' >"$scratch/dialogues.jsonl"
    cat >"$scratch/run.cfg" <<CONFIG
run = { seed = 7; watchdog_seconds = 0; };
model = { path = "$scratch/model"; dtype = "$dtype"; };
lora = { r = 8; lora_alpha = 16; lora_dropout = 0.1; target_modules = [ "all-linear" ]; };
data = { train = ( { path = "$scratch/pairs.jsonl"; format = "prompt_completion"; },
                   { path = "$scratch/dialogues.jsonl"; format = "chat"; } );
         validation = ( { path = "$scratch/pairs.jsonl"; format = "prompt_completion"; } );
         max_length = 64; cache_dir = "$scratch/cache"; };
training = { max_steps = $steps; per_device_train_batch_size = 2; global_batch_size = 8; learning_rate = 1e-2;
             logging_steps = 3; eval_steps = 10; save_steps = 0; gradient_checkpointing = "none"; label_smoothing_factor = 0.1; };
CONFIG
}

weights=(--set loss.entity_weight=1 --set loss.length_weight=2 --set loss.coverage_weight=0.5)

# last KEY RUN: of the last line that has it.
last() {
    grep -o "\"$1\": [0-9.e-]*" "$scratch/$2/metrics.jsonl" | tail -n 1 | cut -d' ' -f2
}

steps=12
make_answers
train reference "${weights[@]}"
for ranks in 2 4; do
    train "ranks-$ranks" "${weights[@]}"
    same "ranks-$ranks" reference "$ranks ranks"
done
ranks=1 threads=2
train threads "${weights[@]}"
same threads reference "two threads"
threads=1
train recomputed "${weights[@]}" --set training.gradient_checkpointing=full
same recomputed reference "activations recomputed"
ranks=2
killed 4 killed "${weights[@]}" # one step behind a log line
ranks=4
train killed "${weights[@]}"
same killed reference "killed on 2 ranks, continued from step $(resumed_from killed) on 4"

ranks=1
train plain
train zero --set loss.entity_weight=0.0 --set loss.length_weight=0.0 --set loss.coverage_weight=0.0
same zero plain "weights of 0"
grep -q loss_ "$scratch/plain/metrics.jsonl" && fail "a loss without terms logs parts"
different reference plain "with all terms"
for term in entity length coverage; do
    train "$term" --set "loss.${term}_weight=1"
    different "$term" plain "loss.${term}_weight"
done
grep -q '"loss_length"\|"loss_coverage"' "$scratch/entity/metrics.jsonl" && fail "parts without a weight are logged"

# The parts are what they say: the coverage that is trained for comes, and evaluation is cross-entropy whatever is trained.
awk -v alone="$(last loss_coverage coverage)" -v first="$(grep -o '"loss_coverage": [0-9.]*' "$scratch/coverage/metrics.jsonl" |
    head -n 1 | cut -d' ' -f2)" -v loss="$(last loss coverage)" -v plain="$(last loss_cross_entropy coverage)" 'BEGIN {
    printf "coverage: %.3f at first, %.3f at the end\n", first, alone
    off = loss - plain - alone
    exit !(alone < first - 0.2 && off < 1e-9 && off > -1e-9)
}' || fail "the coverage does not fall, or the loss is not the sum of its parts"
