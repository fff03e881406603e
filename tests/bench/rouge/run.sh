#!/bin/bash
# ROUGE-1/2/L/Lsum of 11,490 pairs of CNN/DailyMail length on one thread, against Google's rouge_score: both sides in turn,
# medians, the ratio, and whether the scores agree. Ours is the whole command, reading and JSON included; of the peer only
# scoring is timed.
#
#   tests/bench/rouge/run.sh ADAMEM CNN_DAILYMAIL.jsonl [ROUNDS] [PAIRS]     PYTHON names an interpreter that has rouge_score
set -euo pipefail
if (($# < 2)); then
    echo "usage: run.sh ADAMEM CNN_DAILYMAIL.jsonl [ROUNDS] [PAIRS]" >&2
    exit 2
fi
adamem=$1 data=$2 rounds=${3:-3} pairs=${4:-11490}
here=$(dirname "${BASH_SOURCE[0]}")
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_NUM_THREADS=1

"$python" "$here/make_pairs.py" "$data" "$pairs" >"$scratch/pairs.jsonl"
for option in '' --stemmer; do
    for ((round = 0; round < rounds; ++round)); do
        start=$EPOCHREALTIME
        "$adamem" score --metrics rouge1,rouge2,rougeL,rougeLsum ${option:+"$option"} --input "$scratch/pairs.jsonl" >"$scratch/scores"
        echo "{\"seconds\": $(awk "BEGIN { print $EPOCHREALTIME - $start }"), \"scores\": $(<"$scratch/scores")}" >>"$scratch/ours$option"
        "$python" "$here/peer.py" "$scratch/pairs.jsonl" ${option:+"$option"} >>"$scratch/peer$option"
    done
done

"$python" - "$scratch" <<'PROGRAM'
import json, statistics, sys

failed = False
for option in ("", "--stemmer"):
    ours, peer = ([json.loads(line) for line in open(f"{sys.argv[1]}/{side}{option}")] for side in ("ours", "peer"))
    same = all(abs(run["scores"][kind]["fmeasure"] - value) < 1e-12 for run in ours for kind, value in peer[0]["scores"].items())
    seconds, peer_seconds = (statistics.median(run["seconds"] for run in side) for side in (ours, peer))
    print(json.dumps({"stemmer": bool(option), "pairs": peer[0]["pairs"], "words_per_text": round(peer[0]["words"], 1), "same_scores": same,
                      "seconds": seconds, "peer_seconds": peer_seconds, "ratio": peer_seconds / seconds}))
    failed |= not same
sys.exit(failed)
PROGRAM
