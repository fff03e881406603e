#!/bin/bash
# adamem generate: the golden continuations in order from every kind of input, on one, two and three ranks; bad lines and options.
#   generate.sh ADAMEM DATA_FOLDER TOKENIZER_DIR
set -euo pipefail
adamem=$1 data=$2 tokenizer=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks() { mpirun --oversubscribe --bind-to none -n "$@"; }
failed() {
    echo "generate.sh: $*" >&2
    exit 1
}

mkdir "$work/model"
cp "$data"/tied/{config.json,generation_config.json,model.safetensors} "$tokenizer"/{tokenizer.json,tokenizer_config.json} "$work/model"
# The goldens know no tokenizer; its EOS comes up in none of them. A model directory without one writes no text.
generate=("$adamem" generate --max-new-tokens 64 --dtype float32 --set run.backend=cpu)

for model in tied untied; do
    golden=$data/$model/greedy.jsonl
    sed 's/.*"ids": \[\([0-9, ]*\)\], "close.*/[\1]/' "$golden" >"$work/expected"
    "${generate[@]}" --model "$data/$model" --input "$golden" --output "$work/plain" 2>"$work/log"
    sed 's/.*"ids": \[\([0-9, ]*\)\], "prompt.*/[\1]/' "$work/plain" | cmp "$work/expected" -
    grep -q '^{"text": null, ' "$work/plain" || failed "text without a tokenizer"
    grep -q '24 prompts of 1216 tokens' "$work/log" || failed "the counts are not told"
    for n in 2 3; do
        ranks "$n" "${generate[@]}" --model "$data/$model" --input "$golden" --output "$work/ranks" --batch-size $((n + 1)) 2>/dev/null
        cmp "$work/plain" "$work/ranks"
    done
done

# Sampling: the same on any number of ranks and from standard input, another with another seed.
sampled=("${generate[@]}" --model "$work/model" --temperature 0.9 --top-k 100 --top-p 0.9 --repetition-penalty 1.2)
golden=$data/tied/greedy.jsonl
"${sampled[@]}" --input "$golden" >"$work/one" 2>/dev/null
"${sampled[@]}" --input - --batch-size 1 <"$golden" 2>/dev/null | cmp "$work/one" -
ranks 3 "${sampled[@]}" --input "$golden" 2>/dev/null | cmp "$work/one" -
"${sampled[@]}" --input "$golden" --seed 43 >"$work/other" 2>/dev/null
cmp -s "$work/one" "$work/other" && failed "another seed gives the same"
gzip -c "$golden" >"$work/golden.jsonl.gz"
"${sampled[@]}" --input "$work/golden.jsonl.gz" 2>/dev/null | cmp "$work/one" -
if command -v zstd >/dev/null; then
    zstd -q -c "$golden" >"$work/golden.jsonl.zst"
    "${sampled[@]}" --input "$work/golden.jsonl.zst" 2>/dev/null | cmp "$work/one" -
else
    echo "generate.sh: no zstd command: .zst input is not tested"
fi

# Text, messages and their ids are the same prompt.
printf '%s\n' '{"prompt": "<|im_start|>user\nHello there<|im_end|>\n"}' '{"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]}' >"$work/texts"
printf '%s\n' '{"text": "<|im_start|>user\nHello there<|im_end|>\n"}' '{"text": "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}' |
    "$adamem" tokenize --tokenizer "$tokenizer" | sed 's/"ids"/"input_ids"/' >"$work/ids"
"${generate[@]}" --model "$work/model" --input "$work/texts" >"$work/one" 2>/dev/null
"${generate[@]}" --model "$work/model" --input "$work/ids" 2>/dev/null | cmp "$work/one" -
# text is what the ids decode to; a stop string ends it.
sed 's/.*"ids"/{"ids"/; s/, "prompt_tokens.*/}/' "$work/one" | "$adamem" tokenize --tokenizer "$tokenizer" --decode | sed 's/}$//' >"$work/decoded"
sed 's/, "ids".*//' "$work/one" | cmp "$work/decoded" -
stop=$(sed -n '1s/{"text": "\(.*\)", "ids".*/\1/p' "$work/one" | grep -o '[a-z]\{4\}' | sed -n 3p)
"${generate[@]}" --model "$work/model" --input "$work/texts" --stop "$stop" --stop 'never in there' >"$work/stopped" 2>/dev/null
sed -n 1p "$work/stopped" | grep -q '"finish_reason": "stop"' || failed "--stop $stop did not stop"
sed -n '1s/, "ids".*//p' "$work/stopped" | grep -qF -e "$stop" && failed "the stop string is in the text"

# refuse PART ARGUMENTS...: exit status 2, a message that says PART, no output file.
refuse() {
    local part=$1 status=0
    shift
    "${generate[@]}" --output "$work/none" "$@" >"$work/actual" 2>"$work/errors" || status=$?
    [[ $status == 2 && ! -s $work/actual && ! -e $work/none ]] && grep -qF -e "$part" "$work/errors" && return
    cat "$work/errors" >&2
    failed "$*: status $status, expected 2 and \"$part\""
}
bad() { # PART LINE: the second line of the input
    printf '{"input_ids": [1, 2]}\n%s\n{"input_ids": [3]}\n' "$2" >"$work/input"
    refuse "$work/input:2: $1" --model "$work/model" --input "$work/input"
}
bad 'expected exactly one of' '{"text": "a"}'
bad 'expected exactly one of' '{"prompt": "a", "input_ids": [1]}'
bad '"prompt" is of type integer' '{"prompt": 3}'
bad '"messages" is of type string' '{"messages": "hello"}'
bad 'messages[0]: "role" is missing' '{"messages": [{"content": "hello"}]}'
bad 'the prompt is empty' '{"prompt": ""}'
bad 'the prompt is empty' '{"input_ids": []}'
bad 'input_ids[1]' '{"input_ids": [1, 4160]}'
bad 'input_ids[0]' '{"input_ids": [-1]}'
bad 'input_ids[0]' '{"input_ids": ["1"]}'
bad '' '{"prompt": '
printf '{"input_ids": [1]}\n{"input_ids": [%s1]}\n{"input_ids": [%s1]}\n' "$(printf '1, %.0s' {1..511})" "$(printf '1, %.0s' {1..600})" >"$work/input"
refuse "$work/input:2: the prompt has 512 tokens, the model's window takes at most 511 and a new one (2 of 3 prompts" --model "$work/model" --input "$work/input"
printf '{"prompt": "a"}\n' >"$work/input"
refuse 'no tokenizer' --model "$data/tied" --input "$work/input"
refuse 'temperature' --model "$work/model" --input "$work/input" --temperature -1
refuse 'temperature hot' --model "$work/model" --input "$work/input" --temperature hot
refuse 'top_p' --model "$work/model" --input "$work/input" --top-p 0
refuse '--top-k -1' --model "$work/model" --input "$work/input" --top-k -1
refuse 'repetition_penalty' --model "$work/model" --input "$work/input" --repetition-penalty 0
refuse '--max-new-tokens' --model "$work/model" --input "$work/input" --max-new-tokens 0
refuse '--batch-size' --model "$work/model" --input "$work/input" --batch-size 0
refuse '--dtype' --model "$work/model" --input "$work/input" --dtype float16
refuse '--stop is empty' --model "$work/model" --input "$work/input" --stop ''
refuse 'give --input' --model "$work/model"
refuse 'give --model' --input "$work/input"
refuse 'not both' --checkpoint x --adapter y --input "$work/input"
refuse '/nonexistent' --model /nonexistent --input "$work/input"
refuse '/nonexistent' --model "$work/model" --input /nonexistent
refuse 'nearest is --temperature' --model "$work/model" --input "$work/input" --temprature 1

# Nothing to do is no error.
: >"$work/input"
"${generate[@]}" --model "$work/model" --input "$work/input" --output "$work/none" 2>/dev/null
[[ -e $work/none && ! -s $work/none ]] || failed "an empty input gives an empty output"
