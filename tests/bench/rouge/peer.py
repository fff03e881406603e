"""Google's rouge_score over pairs: {"seconds", "scores": {metric: mean fmeasure}, "words"}. Only scoring is timed.

    peer.py PAIRS.jsonl [--stemmer]
"""

import json
import sys
import time

from rouge_score import rouge_scorer

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def main(path, stemmer):
    with open(path, encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=stemmer)
    sums = dict.fromkeys(KINDS, 0.0)
    start = time.perf_counter()
    for pair in pairs:
        scores = scorer.score_multi(pair["references"], pair["prediction"])
        for kind in KINDS:
            sums[kind] += scores[kind].fmeasure
    seconds = time.perf_counter() - start
    words = sum(len(pair["prediction"].split()) + len(pair["references"][0].split()) for pair in pairs) / len(pairs) / 2
    print(json.dumps({"seconds": seconds, "pairs": len(pairs), "words": words, "scores": {k: v / len(pairs) for k, v in sums.items()}}))


if __name__ == "__main__":
    main(sys.argv[1], "--stemmer" in sys.argv)
