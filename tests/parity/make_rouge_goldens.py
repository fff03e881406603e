"""Writes made-up texts with their scores by Google's rouge_score: several references, long lines, empty texts, Unicode.

    python3 make_rouge_goldens.py OUTPUT.jsonl.gz     # needs rouge_score; made with rouge_score 0.1.2, nltk 3.10.4
"""

import gzip
import json
import random
import sys

from rouge_score import rouge_scorer

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
WORDS = ("the cat dogs ran running runs to of meeting meetings discussed discussion agreed agreeing costs cost 12 3.5 U.S. co-operation news "
         "proceed relational hopefulness skies dying it's \u4f1a\u8bae caf\u00e9 na\u00efve \u0130zmir \u212aelvin stra\u00dfe \u039f\u0394\u039f\u03a3 \U0001f600 a\u0301b x\u00a0y \u2028 - -- .").split(" ")


def text(source):
    few = source.sample(WORDS, source.choice([2, 4, len(WORDS)]))
    words = [source.choice(few) for _ in range(source.choice([0, 1, 5, 30, 70, 150, 300]))]
    breaks = source.choice([0.0, 0.02, 0.1, 0.4])
    return "".join(word + ("\n" if source.random() < breaks else " ") for word in words)


def main(output):
    source = random.Random(1)
    lines = []
    for _ in range(100):
        prediction, references = text(source), [text(source) for _ in range(source.choice([1, 1, 2, 4]))]
        line = {"prediction": prediction, "references": references}
        for key, stemmer in (("scores", False), ("scores_stemmer", True)):
            scores = rouge_scorer.RougeScorer(KINDS, use_stemmer=stemmer).score_multi(references, prediction)
            line[key] = {kind: scores[kind]._asdict() for kind in KINDS}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    with open(output, "wb") as file:
        file.write(gzip.compress("".join(lines).encode(), 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
