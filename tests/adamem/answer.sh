#!/bin/bash
# adamem answer: what a latent memory was trained to answer comes out of serving, in order, whatever the batch; contexts are
# found by their ids; what cannot be answered is refused.
#
#   tests/adamem/answer.sh ADAMEM
set -euo pipefail
adamem=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/adamem-answer-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

"$adamem" init-model --preset tiny --tokenizer "$repository/tests/data/tokenizer-small" --output model 2>/dev/null
colours=(red green blue white)
for i in 0 1 2 3; do
    context="The house of number $i is ${colours[i]}."
    for ((k = 0; k < 5 * i; ++k)); do context+=" It is warm."; done
    for what in house garden; do
        query="Which colour has the $what?"
        answer=$([[ $what == house ]] && echo "${colours[i]}" || echo "nobody knows")
        echo "{\"context\": \"$context\", \"query\": \"$query\", \"answer\": \"$answer\"}" >>qa.jsonl
        echo "{\"id\": \"$what $i\", \"context\": $i, \"query\": \"$query\"}" >>queries.jsonl
        echo "$answer" >>expected
    done
    echo "{\"id\": $i, \"context\": \"$context\"}" >>contexts.jsonl
done
cat >run.cfg <<'CONFIG'
run = { seed = 7; watchdog_seconds = 0; backend = "cpu"; output_dir = "run"; };
model = { path = "model"; dtype = "float32"; };
data = { train = ( { path = "qa.jsonl"; format = "qa"; } ); };
training = { objective = "memory_task"; max_steps = 500; per_device_train_batch_size = 8; learning_rate = 3e-3;
             lr_scheduler_type = "constant"; save_steps = 0; logging_steps = 100; };
adamem = { chunk_size = 8; n_latents = 4; hidden_size = 32; num_heads = 4; encoder_layers = 1; resampler_layers = 1;
           context_length = 96; continuation_length = 32; contrastive_size = 8; unfreeze_layers = 4;
           unfreeze_learning_rate = 3e-3; };
CONFIG
"$adamem" train --config run.cfg 2>errors || { cat errors >&2 && fail "training"; }

# ask NAME [OPTION]...: answers.NAME
ask() {
    local name=$1
    shift
    "$adamem" answer --checkpoint run/final.h5 --context-file contexts.jsonl --input queries.jsonl --output "$name" \
        --max-new-tokens 12 "$@" 2>errors || { cat errors >&2 && fail "$name"; }
}
ask answers --compare
sed 's/.*"answer": "\([^"]*\)".*/\1/' answers | diff expected - >&2 || fail "it does not answer what it was trained to (loss: $(tail -n 1 run/metrics.jsonl))"
sed 's/"id": "\([^"]*\)".*/\1/; s/^{//' answers | diff <(sed 's/"id": "\([^"]*\)".*/\1/; s/^{//' queries.jsonl) - >&2 || fail "order"
grep -q '^4 contexts encoded in .*; 8 queries' errors || fail "it does not tell what it did"
full=$(grep -o 'instead of [0-9]* with the full contexts' errors | tr -dc 0-9)
with=$(grep -o 'prompt tokens: [0-9]*' errors | tr -dc 0-9)
sum=$(grep -o '"prompt_tokens": [0-9]*' answers | awk '{ sum += $2 } END { print sum }')
if [[ $with != "$sum" ]] || ((full <= with)); then
    fail "prompt tokens: $with told, $sum in the answers, $full with the full contexts"
fi
grep -q '^with the full contexts: ' errors || fail "--compare does not compare"
ask alone --batch-size 1
cmp answers alone || fail "the batch size changes answers"

# refused PATTERN FILE LINE: as --input or --context-file.
refused() {
    local pattern=$1 contexts=contexts.jsonl queries=queries.jsonl status=0
    echo "$3" >bad.jsonl
    if [[ $2 == contexts ]]; then contexts=bad.jsonl; else queries=bad.jsonl; fi
    "$adamem" answer --checkpoint run/final.h5 --context-file "$contexts" --input "$queries" --output bad.out >/dev/null 2>errors || status=$?
    if [[ $status != 2 ]] || ! grep -q "bad.jsonl:1: $pattern" errors; then cat errors >&2 && fail "status $status for $3"; fi
    [[ ! -e bad.out ]] || fail "answers were written for $3"
}
refused 'there is no context with the id 9' queries '{"id": 1, "context": 9, "query": "q"}'
refused 'there are 4 contexts, none with the id "x"' queries '{"id": "x", "query": "q"}'
refused '"id" is missing' queries '{"query": "q"}'
refused 'the query is empty or longer than adamem.continuation_length = 32' queries \
    "{\"id\": 0, \"query\": \"$(printf 'dog %.0s' {1..60})\"}"
refused '"context"' contexts '{"id": 0}'
refused '"id" is of type object' contexts '{"id": {}, "context": "c"}'
sed -i 's/"memory_task"/"sft"/; s/^model = {/lora = { target_modules = [ "q_proj" ]; };\nmodel = {/; s/unfreeze_layers = 4;//; s/max_steps = 500/max_steps = 1/; s/"run"/"plain"/' run.cfg
"$adamem" train --config run.cfg 2>errors || { cat errors >&2 && fail "training without a memory"; }
if "$adamem" answer --checkpoint plain/final.h5 --context-file contexts.jsonl --input queries.jsonl 2>errors; then fail "answers without a memory"; fi
grep -q 'there is no latent memory to ask' errors || { cat errors >&2 && fail "what is missing is not said"; }
