#!/bin/sh
# adamem tokenize byte for byte against Python's json.dumps(..., ensure_ascii=False) of what Transformers gave, and its errors.
#   tokenize.sh ADAMEM TOKENIZER_DIR
set -eu
adamem=$1 data=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$data/golden.jsonl chat=$data/golden_chat.jsonl

sed 's/.*"ids": \[\([0-9, ]*\)\]}$/{"ids": [\1]}/' "$golden" >"$work/expected"
"$adamem" tokenize --tokenizer "$data" --input "$golden" >"$work/ids"
cmp "$work/expected" "$work/ids"
OMP_NUM_THREADS=3 "$adamem" tokenize --tokenizer "$data" <"$golden" | cmp "$work/expected" -

sed 's/.*"add_generation_prompt": [a-z]*, /{/' "$chat" >"$work/expected"
"$adamem" tokenize --tokenizer "$data" --chat --input "$chat" >"$work/actual"
cmp "$work/expected" "$work/actual"
sed 's/, "ids": \[[0-9, ]*\]}$/}/' "$work/expected" >"$work/texts"
"$adamem" tokenize --tokenizer "$data" --decode --input "$work/expected" | cmp "$work/texts" -

# expect_error PART ARGUMENTS...: exit status 2 and a message that says PART; input from $work/input
expect_error() {
    part=$1
    shift
    status=0
    "$adamem" tokenize "$@" <"$work/input" >"$work/actual" 2>"$work/errors" || status=$?
    if [ "$status" -ne 2 ] || ! grep -qF -e "$part" "$work/errors"; then
        echo "tokenize $*: status $status, expected 2 and \"$part\" in:" >&2
        cat "$work/errors" >&2
        exit 1
    fi
}
printf '{"text": "a"}\n\n{"text": 3}\n{"text": "b"}\n' >"$work/input"
expect_error "$work/input:3: \"text\"" --tokenizer "$data" --input "$work/input"
[ "$(wc -l <"$work/actual")" -eq 1 ]
expect_error "nearest is --tokenizer" --tokeniser "$data"
expect_error "--tokenizer DIR is missing" --decode
expect_error "exclude each other" --tokenizer "$data" --decode --chat
expect_error "unexpected argument" --tokenizer "$data" more
expect_error "/nonexistent" --tokenizer /nonexistent
printf '{"ids": [5, 4099]}\n' >"$work/input"
expect_error "id 4099 at position 1" --tokenizer "$data" --decode
printf '{"messages": [{"role": "tool", "content": ""}]}\n' >"$work/input"
expect_error "role \"tool\"" --tokenizer "$data" --chat
"$adamem" tokenize --help | grep -q -e --decode
