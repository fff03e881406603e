#!/bin/bash
# Generation in evaluation: a run that generates while it trains (any number of ranks, resumed, best by a metric), base against
# adapter in one command, several references, broken and impossible inputs.
#   evaluate.sh ADAMEM TOKENIZER_DIR ENCODER_DIR (tests/data/encoder/roberta)
set -euo pipefail
adamem=$1 tokenizer=$2 encoder=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export TMPDIR=$work OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks() { mpirun --oversubscribe --bind-to none -n "$@"; }
failed() {
    echo "evaluate.sh: $*" >&2
    exit 1
}
# timeless FILE: without what a clock decides.
timeless() { sed -E 's/"[a-z_]*(second|seconds|runtime|memory_bytes|mfu)[a-z_]*": [-+.e0-9]+(, )?//g; s/"[a-z_]*_per_second": [-+.e0-9]+(, )?//g' "$1"; }
# number KEY FILE: the first value of a key.
number() { grep -o "\"$1\": [-+.e0-9]*" "$2" | head -n 1 | sed 's/.*: //'; }

"$adamem" init-model --preset tiny --tokenizer "$tokenizer" --set torch_dtype=float32 --set max_position_embeddings=128 \
    --output model 2>/dev/null
colours=(sky:blue grass:green sea:blue snow:white coal:black rose:red sand:yellow)
for pair in "${colours[@]}"; do
    echo "{\"prompt\": \"What colour is the ${pair%:*}?\", \"completion\": \" The ${pair%:*} is ${pair#*:}.\"}"
done >data.jsonl
cat >run.cfg <<'TXT'
model = { path = "model"; dtype = "float32"; };
lora = { r = 4; lora_dropout = 0.1; target_modules = [ "all-linear" ]; };
data = {
  train = ( { path = "data.jsonl"; format = "prompt_completion"; } );
  validation = ( { path = "data.jsonl"; format = "prompt_completion"; } );
  max_length = 64;
};
training = {
  max_steps = 8; global_batch_size = 4; per_device_train_batch_size = 2; learning_rate = 2e-2; logging_steps = 2;
  eval_steps = 2; save_steps = 2; predict_with_generate = true; metric_for_best_model = "rougeL"; load_best_model_at_end = true;
};
evaluation = { max_new_tokens = 8; metrics = [ "rouge1", "rougeL", "em" ]; batch_size = 3; };
TXT
train=("$adamem" train --config run.cfg --set run.backend=cpu)

# Training: the same lines on one, two and three ranks; and in two parts.
"${train[@]}" --set run.output_dir=one 2>log
grep -q 'eval_rougeL 0\.' log || failed "the log does not tell the metrics"
grep -q '2 predicted: ' log || failed "the log does not show samples"
for n in 2 3; do
    ranks "$n" "${train[@]}" --set run.output_dir="on$n" 2>/dev/null
    cmp <(timeless one/metrics.jsonl) <(timeless "on$n/metrics.jsonl")
done
"${train[@]}" --set run.output_dir=parts >/dev/null 2>&1 &
process=$!
until [ -e parts/checkpoint-4.h5 ] || ! kill -0 "$process" 2>/dev/null; do sleep 0.02; done
kill -9 "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
rm -f parts/checkpoint-6.h5 parts/checkpoint-8.h5 # where it was faster than the signal
ranks 2 "${train[@]}" --set run.output_dir=parts 2>log
grep -q '^continuing from step 4' log || failed "not resumed"
cmp <(timeless one/metrics.jsonl) <(timeless parts/metrics.jsonl)
digest() { "$adamem" inspect "$1" --json | grep -o '"digest": "[0-9a-f]*"'; }
[ "$(digest one/final.h5)" = "$(digest parts/final.h5)" ] || failed "a resumed run ends elsewhere"
grep -o '"eval_rougeL"' one/metrics.jsonl | wc -l | grep -qx 4 || failed "not every evaluation has its metric"
grep -q '"samples": \[{"index": 0, "prediction": ".*", "reference": " The sky is blue."}, .*"index": 2' one/metrics.jsonl ||
    failed "no samples in metrics.jsonl"
grep -aq eval_rougeL one/events.out.tfevents* || failed "no metric in TensorBoard's file"
# The best is the largest rougeL, the first of equals.
largest=$(grep -o '"eval_rougeL": [-+.e0-9]*' one/metrics.jsonl | sed 's/.*: //' | sort -g | tail -n 1)
best=$(grep '"best": true' one/metrics.jsonl | tail -n 1 | grep -o '"eval_rougeL": [-+.e0-9]*' | sed 's/.*: //')
[ "$largest" = "$best" ] || failed "best has rougeL $best, not $largest"
first=$(grep "\"eval_rougeL\": ${largest}[,}]" one/metrics.jsonl | head -n 1 | grep -o '"step": [0-9]*' | tr -dc 0-9)
readlink one/final.h5 | grep -qx "checkpoint-$first.h5" || failed "final.h5 is not the best by rougeL"
# A metric that cannot grow stops the run; another metric than the checkpoint's begins anew.
"${train[@]}" --set run.output_dir=early --set training.learning_rate=0.0 --set training.early_stopping_patience=2 2>log
grep -q 'stopping early: 2 evaluations without a better rougeL than .* at step 2' log || failed "no early stopping by rougeL"
"${train[@]}" --set run.output_dir=one --set training.max_steps=10 --set training.metric_for_best_model=eval_loss 2>log
grep -q 'metric_for_best_model was rougeL and is now eval_loss' log || failed "the best of another metric was kept"
rm -rf one && cp -r on2 one

# One command: base against adapter, the same on any number of ranks; a checkpoint and its exported adapter say the same.
evaluate=("$adamem" evaluate --generate --set run.backend=cpu --set data.cache_dir=cache)
saved=(--config run.cfg --set run.output_dir=one --checkpoint one/final.h5)
"${evaluate[@]}" "${saved[@]}" --predictions predictions >json 2>log
for n in 2 3; do
    ranks "$n" "${evaluate[@]}" "${saved[@]}" --predictions "predictions$n" --table "table$n" >"json$n" 2>/dev/null
    cmp <(timeless json) <(timeless "json$n")
    cmp predictions "predictions$n"
done
"$adamem" export --checkpoint one/final.h5 --format peft --output adapter 2>/dev/null
"${evaluate[@]}" --model model --adapter adapter --input data.jsonl --metrics rouge1,rougeL,em --predictions plain \
    --set model.dtype=float32 --set data.max_length=64 --set evaluation.max_new_tokens=8 --set evaluation.batch_size=32 >json4 2>/dev/null
cmp predictions plain
cmp <(timeless json) <(timeless json4)
has() { grep -q -e "$1" "$2" || failed "no \"$1\" in $2: $(cat "$2")"; }
has '^rougeL ' log
has '^adapter .* 7 ' log
has '^words (reference 4.0)' table2
# The base of that comparison is the base alone, and training has moved away from it.
"${evaluate[@]}" --config run.cfg --set run.output_dir=base_only >base 2>/dev/null
sed 's/.*"base_prediction": //; s/, "references.*//' predictions >of_base
"${evaluate[@]}" --model model --input data.jsonl --set model.dtype=float32 --set data.max_length=64 \
    --set evaluation.max_new_tokens=8 --predictions alone >/dev/null 2>&1
sed 's/.*"prediction": //; s/, "references.*//' alone | cmp of_base -
sed 's/.*"base": {//' json >base_part
[ "$(number loss base)" = "$(number loss base_part)" ] || failed "the base of the comparison has another loss"
grep -q '"comparison": {"rouge1": {"base": ' json || failed "no comparison"
awk -v a="$(number loss json)" -v b="$(number loss base)" 'BEGIN { exit !(a < b - 0.1) }' || failed "the adapter is no better"
"${evaluate[@]}" "${saved[@]}" --baseline none >json5 2>/dev/null
grep -q '"base"' json5 && failed "--baseline none compares"
grep -q '"intervals": {"rouge1": \[' json5 || failed "no intervals"
[ "$(number loss json5)" = "$(number loss json)" ] || failed "--baseline changes the loss"
# The same numbers as adamem score finds in the predictions.
"$adamem" score --metrics rouge1,rougeL,em,words --input predictions >scores
grep -qF -e "$(sed 's/^{//; s/}$//' scores)" json || failed "score says otherwise: $(cat scores)"

# Trained base tensors: the base is what it was before the checkpoint.
"${train[@]}" --set run.output_dir=full --set training.max_steps=2 --set 'lora.target_modules=[]' --set 'model.trainable=[layers]' \
    --set training.predict_with_generate=false --set training.metric_for_best_model=eval_loss 2>/dev/null
"${evaluate[@]}" --checkpoint full/final.h5 >json6 2>/dev/null
sed 's/.*"base": {//' json6 >base_part
[ "$(number loss base)" = "$(number loss base_part)" ] || failed "the base of a full fine-tuning has another loss"

# bertscore by a model directory; sampling with a seed does not depend on ranks either.
"${evaluate[@]}" --model model --input data.jsonl --set model.dtype=float32 --set evaluation.max_new_tokens=4 --metrics bertscore \
    --bertscore-model "$encoder" --set evaluation.bertscore_layers=2 >json 2>/dev/null
has '"bertscore": {"precision": [-0-9]' json
sampled=("${evaluate[@]}" "${saved[@]}" --baseline none --set evaluation.temperature=1.0 --set evaluation.top_k=50 --set evaluation.top_p=0.9)
"${sampled[@]}" --predictions sampled >/dev/null 2>&1
ranks 2 "${sampled[@]}" --predictions sampled2 >/dev/null 2>&1
cmp sampled sampled2
cmp -s sampled predictions && failed "temperature does nothing"

# Several references; what cannot be asked is counted and scored as empty, and the rest goes on.
long=$(printf 'word %.0s' {1..200})
printf '%s\n' '{"prompt": "one two", "completion": " three"}' '{"prompt": "one two", "completion": " four"}' \
    '{"prompt": "", "completion": "x"}' "{\"prompt\": \"$long\", \"completion\": \"y\"}" '{"prompt": "z", "completion": ""}' >odd.jsonl
odd=("${evaluate[@]}" --model model --input odd.jsonl --set model.dtype=float32 --set data.max_length=1000
    --set evaluation.max_new_tokens=8 --metrics "rougeL,f1")
"${odd[@]}" --predictions odd >json 2>log
wc -l <odd | grep -qx 4 || failed "references of one prompt are not one example"
grep -q '"references": \[" three", " four"\]' odd || failed "no second reference"
grep -q '"examples": 4, "references": 5, "prompt_limit": 120, "shortened_prompts": 1, "too_long_prompts": 0, "empty_prompts": 1' json ||
    failed "counts: $(cat json)"
grep -q '"index": 1, .*"prediction": "", ' odd || failed "an empty prompt was asked"
grep -q '"index": 2, .*"prompt_tokens": 120, ' odd || failed "a long prompt does not leave room for what is new"
has 'warning: .*1 of 4 prompts are empty' log
has '1 references are empty' log
# A system message is never cut.
printf '%s\n' "{\"messages\": [{\"role\": \"system\", \"content\": \"$long\"}, {\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}" \
    '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}' >chat.jsonl
"${evaluate[@]}" --model model --input chat.jsonl --set evaluation.max_new_tokens=4 --set evaluation.input_max_length=100 \
    --predictions odd >json 2>log
has '"too_long_prompts": 1' json
has 'warning: 1 of 2 prompts cannot be brought to 100 tokens' log
has '"index": 0, .*"prompt_tokens": 0, "new_tokens": 0, "prediction": "", ' odd
printf '%s\n' '{"messages": [{"role": "user", "content": "q"}]}' \
    '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}' >chat.jsonl
"${evaluate[@]}" --model model --input chat.jsonl --set evaluation.max_new_tokens=4 >json 2>log
has '"examples": 1, .*"without_reference": 1' json
has 'warning: .*1 records hold no answer' log
"${evaluate[@]}" --config run.cfg --set run.output_dir=few --set evaluation.max_samples=2 >json 2>/dev/null
grep -q '"examples": 2, ' json || failed "max_samples"

# refuse PART ARGUMENTS...: exit status 2 and a message that says PART.
refuse() {
    local part=$1 status=0
    shift
    "$@" >out 2>log || status=$?
    [ "$status" -eq 2 ] || failed "status $status, not 2: $*"
    grep -q -e "$part" log || failed "no \"$part\" in: $(cat log)"
    ! [ -s out ] || failed "output in spite of an error"
}
evaluate+=(--set evaluation.max_new_tokens=8)
echo '{"text": "just text"}' >text.jsonl
echo '{"input_ids": [1, 2, 3]}' >tokens.jsonl
refuse 'text.jsonl:1: format text has no completion' "${evaluate[@]}" --model model --input text.jsonl
refuse 'tokens.jsonl:1: format tokens needs "labels"' "${evaluate[@]}" --model model --input tokens.jsonl
refuse 'tokens.jsonl:1: format tokens needs "labels"' ranks 2 "${evaluate[@]}" --model model --input tokens.jsonl
refuse 'evaluation.max_new_tokens = 500 leaves no room' "${evaluate[@]}" --model model --input data.jsonl --set evaluation.max_new_tokens=500
refuse 'rouge9' "${evaluate[@]}" --model model --input data.jsonl --metrics rouge9
refuse 'bertscore needs evaluation.bertscore_model' "${evaluate[@]}" --model model --input data.jsonl --metrics bertscore
refuse 'nowhere/file: cannot write there' "${evaluate[@]}" --model model --input data.jsonl --predictions nowhere/file
refuse 'model is a directory' ranks 2 "${evaluate[@]}" --model model --input data.jsonl --table model
mkdir bare && cp model/config.json model/model.safetensors bare
echo '{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}' >labelled.jsonl
refuse 'bare holds no tokenizer' "${evaluate[@]}" --model bare --input labelled.jsonl
head -n 3 data.jsonl >broken.jsonl && echo '{"prompt": 1, "completion": "x"}' >>broken.jsonl
refuse 'broken.jsonl:4: ' "${evaluate[@]}" --model model --input broken.jsonl
refuse 'text.jsonl:1: format text has no completion' "${train[@]}" --set run.output_dir=never \
    --set 'data.validation=( { path = "text.jsonl"; format = "text"; } )'
echo "evaluate.sh: passed"
