#!/bin/sh
# Tokenizing on one thread against Hugging Face tokenizers: both sides in turn, medians, the ratio, and whether the ids agree.
#   run.sh BENCH_TOKENIZER TOKENIZER_DIR FILE.jsonl [ROUNDS]     PYTHON names an interpreter that has tokenizers
set -eu
if [ $# -lt 3 ]; then
    echo "usage: run.sh BENCH_TOKENIZER TOKENIZER_DIR FILE.jsonl [ROUNDS]" >&2
    exit 2
fi
bench=$1 tokenizer=$2 file=$3 rounds=${4:-5}
here=$(dirname "$0")
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
round=0
while [ "$round" -lt "$rounds" ]; do
    "$bench" "$tokenizer" "$file" >>"$results/ours"
    "${PYTHON:-python3}" "$here/peer.py" "$tokenizer" "$file" >>"$results/peer"
    round=$((round + 1))
done
"${PYTHON:-python3}" - "$results" <<'PROGRAM'
import json, statistics, sys

sides = {}
for name in ("ours", "peer"):
    with open(f"{sys.argv[1]}/{name}") as file:
        sides[name] = [json.loads(line) for line in file]
rows = sides["ours"] + sides["peer"]
same = all(row[key] == rows[0][key] for row in rows for key in ("bytes", "tokens", "checksum"))
median = {name: statistics.median(row["seconds"] for row in side) for name, side in sides.items()}
rate = {name: rows[0]["bytes"] / seconds / 1e6 for name, seconds in median.items()}
print(json.dumps({"same_ids": same, "tokens": rows[0]["tokens"], "megabytes_per_second": rate["ours"],
                  "peer_megabytes_per_second": rate["peer"], "ratio": rate["ours"] / rate["peer"]}))
sys.exit(0 if same else 1)
PROGRAM
