#!/bin/bash
# The sub-command prepare from outside: counts, caches, ranks, standard input, visible masks, errors, a full disk.
#
#   tests/prepare/prepare.sh ADAMEM SOURCE_DIRECTORY [MPIRUN]
set -euo pipefail
adamem=$1 source=$2 mpirun=${3:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

fail() {
    echo "prepare.sh: $*" >&2
    exit 1
}
# expect STATUS PATTERN COMMAND...: exit status and a pattern in standard error
expect() {
    local wanted=$1 pattern=$2 found=0
    shift 2
    "$@" >out.txt 2>err.txt || found=$?
    [[ $found == "$wanted" ]] || fail "exit status $found, expected $wanted: $* -- $(cat err.txt)"
    grep -q -- "$pattern" err.txt || fail "no \"$pattern\" in: $(cat err.txt)"
}

formats=$source/tests/data/formats
cat >config.cfg <<EOF
run = { output_dir = "$scratch/run"; };
model = { path = "$source/tests/data/tokenizer-small"; };
data = {
  train = ( { path = "train.jsonl"; format = "chat"; }, { path = "$formats/text.jsonl"; format = "text"; } );
  validation = ( { path = "$formats/qmsum.jsonl"; format = "qmsum"; } );
  max_length = 512;
};
EOF
for _ in $(seq 300); do cat "$formats/chat.jsonl"; done >train.jsonl

"$adamem" prepare --help | grep -q 'prompt      "\[INST\] Summarize the following news article:\\n\\n{article}' || fail "--help hides the templates"

# Counts: one line of JSON, the same when the cache is there, which is left alone.
"$adamem" prepare --config config.cfg >first.json 2>progress.txt
[[ $(wc -l <first.json) == 1 ]] || fail "more than one line of results"
grep -q '^{"train": {"records": 1802, "samples": 1802, "dropped": {"no_label": 0, .*"label_tokens": [0-9]*, "longest": [0-9]*, "cache_directory": "' first.json ||
    fail "unexpected counts: $(cat first.json)"
grep -q '"validation": {"records": 1, "samples": 3,' first.json || fail "unexpected counts: $(cat first.json)"
cache=$(echo run/cache/train-*)
before=$(stat -c %i "$cache"/*)
"$adamem" prepare --config config.cfg >second.json 2>err.txt
cmp first.json second.json
[[ $before == "$(stat -c %i "$cache"/*)" ]] || fail "an unchanged cache was written again"

# Stale: other data, or another limit, is another cache; the same data under another name is not.
mv train.jsonl renamed.jsonl
"$adamem" prepare --config config.cfg --set 'data.train=( { path="renamed.jsonl"; format="chat"; } )' --set 'data.validation=( )' >out.txt 2>err.txt
"$adamem" prepare --config config.cfg --set 'data.train=( { path="renamed.jsonl"; format="chat"; } )' --set 'data.validation=( )' \
    --set data.max_length=500 >out.txt 2>err.txt
mv renamed.jsonl train.jsonl
[[ $(find run/cache -maxdepth 1 -name 'train-*' | wc -l) == 3 ]] || fail "caches: $(ls run/cache)"

# Standard input gives what the file gives, and needs a single rank.
chat=$("$adamem" prepare --config config.cfg --set 'data.train=( { path="train.jsonl"; format="chat"; } )' --set 'data.validation=( )' 2>err.txt)
[[ $("$adamem" prepare --config config.cfg --set 'data.train=( { path="-"; format="chat"; } )' --set 'data.validation=( )' \
    <train.jsonl 2>err.txt) == "$chat" ]] || fail "standard input gives other samples"
[[ -z $(find run/cache -name 'standard-input*') ]] || fail "the copy of standard input was left behind"

# The mask is visible.
"$adamem" prepare --config config.cfg --show-samples 2 >shown.txt 2>err.txt
grep -q '^=== train sample 1: [0-9]* tokens, [0-9]* trained$' shown.txt || fail "no heading: $(head -3 shown.txt)"
grep -q $'^\302\253Hi, how can I help?<|im_end|>\302\273$' shown.txt || fail "no mask: $(head -20 shown.txt)"
tail -n 1 shown.txt | cmp - first.json

# Without a tokenizer only tokens can be read.
mkdir bare
expect 2 'needs a tokenizer' "$adamem" prepare --config config.cfg --set model.path=bare
"$adamem" prepare --config config.cfg --set model.path=bare --set "data.train=( { path=\"$formats/tokens.jsonl\"; format=\"tokens\"; } )" \
    --set 'data.validation=( )' --show-samples 1 >out.txt 2>err.txt
grep -q $'^5 6 \302\2537 8\302\273$' out.txt || fail "ids are not shown: $(cat out.txt)"
echo '{"vocab_size": 8}' >bare/config.json
expect 2 'tokens.jsonl:1: input_ids\[3\] = 8 is not in the model.s vocabulary of 8 tokens' "$adamem" prepare --config config.cfg \
    --set model.path=bare --set "data.train=( { path=\"$formats/tokens.jsonl\"; format=\"tokens\"; } )" --set 'data.validation=( )'

# Errors name what is wrong, and leave no manifest.
expect 2 'data.prompt_template: format chat takes no template' "$adamem" prepare --config config.cfg --set 'data.prompt_template="{x}"'
expect 2 'data.prompt_template: unknown field {x}' "$adamem" prepare --config config.cfg --set 'data.prompt_template="{x}"' \
    --set "data.train=( { path=\"$formats/qmsum.jsonl\"; format=\"qmsum\"; } )"
expect 2 'nowhere.jsonl' "$adamem" prepare --config config.cfg --set 'data.train=( { path="nowhere.jsonl"; format="text"; } )'
expect 2 'the nearest is --show-samples' "$adamem" prepare --config config.cfg --show-sampels 2
printf '{"text": "good"}\n{"txt": "bad"}\n' >broken.jsonl
expect 2 'broken.jsonl:2: "text" is missing' "$adamem" prepare --config config.cfg --set 'data.train=( { path="broken.jsonl"; format="text"; } )' \
    --set data.cache_dir=broken
[[ -z $(find broken -type f) ]] || fail "left behind: $(find broken -type f)"
printf '{"input_ids": [1, 2], "labels": [-100, %d]}\n' -100 2 2 >masked.jsonl
expect 2 '1 of 3 samples have no label to train on, the first at masked.jsonl:1' "$adamem" prepare --config config.cfg \
    --set 'data.train=( { path="masked.jsonl"; format="tokens"; } )'

# A full disk (a limit on file size stands for it): a clean error, nothing half-written, and all is well afterwards.
for _ in $(seq 300); do cat "$formats/squality.jsonl"; done >large.jsonl
large=(--set 'data.train=( { path="large.jsonl"; format="squality"; } )' --set data.cache_dir=full --set data.max_length=2000)
expect 1 'cannot write' bash -c 'trap "" XFSZ; ulimit -f 200; exec "$@"' limit "$adamem" prepare --config config.cfg "${large[@]}"
[[ -z $(find full -type f) ]] || fail "left behind: $(find full -type f)"
"$adamem" prepare --config config.cfg "${large[@]}" >out.txt 2>err.txt

# Ranks: the same bytes, each result once.
if [[ -n $mpirun ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
    "$mpirun" --oversubscribe -n 3 "$adamem" prepare --config config.cfg --set data.cache_dir=ranks >ranks.json 2>err.txt
    sed "s|ranks/|$scratch/run/cache/|g" ranks.json | cmp - first.json
    cmp "$cache/part-000-000000.h5" "ranks/$(basename "$cache")/part-000-000000.h5"
    expect 2 'standard input needs a single rank' "$mpirun" --oversubscribe -n 2 "$adamem" prepare --config config.cfg \
        --set 'data.train=( { path="-"; format="chat"; } )' --set data.cache_dir=ranks2
    expect 2 'broken.jsonl:2: "text" is missing' "$mpirun" --oversubscribe -n 2 "$adamem" prepare --config config.cfg \
        --set 'data.train=( { path="broken.jsonl"; format="text"; } )' --set data.cache_dir=ranks2
fi
echo "prepare.sh: all well"
