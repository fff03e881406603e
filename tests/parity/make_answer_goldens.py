"""Writes 1,000 question-answer pairs with F1 and exact match by the rules of SQuAD 2.0's evaluation script.

    python3 make_answer_goldens.py TEXT.jsonl OUTPUT.jsonl.gz

The rules, written down here from their description: normalise = lower case, drop string.punctuation, replace the words a, an,
the by a space, squeeze white space. Exact match compares normalised texts; F1 is of the bags of words, and where either side
has no word it is 1 if neither has, else 0. References that normalise to nothing are dropped; with none left the answer is "".
The maximum over the references counts. TEXT.jsonl is a JSON lines file with "text" of public-domain books.
"""

import collections
import gzip
import json
import random
import re
import string
import sys

COUNT = 1000
ODD = ["", " ", "the", "A", "an.", "a\u0301", "the\u2013end", "_", "THE \u0130stanbul", "\u039f\u0394\u039f\u03a3", "\u03a3", "\u03a3\u0391\u03a3.", "co-op", "U.S.A.",
       "\u4e2d\u6587 a", "caf\u00e9\u00a0The", "\u2003x\u2028y", "\u00ab the \u00bb", "1,000", "\u212a9", "the\u0301 a", "\u2167 An", "a1 a", "n\u00ba a\u00b2", "\u00df \u1e9e", "theatre an-a"]


def normalize(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1_of(prediction, reference):
    p, r = normalize(prediction).split(), normalize(reference).split()
    common = sum((collections.Counter(p) & collections.Counter(r)).values())
    if not p or not r:
        return float(p == r)
    if common == 0:
        return 0.0
    precision, recall = common / len(p), common / len(r)
    return 2 * precision * recall / (precision + recall)


def score(prediction, references):
    references = [r for r in references if normalize(r)] or [""]
    return max(f1_of(prediction, r) for r in references), max(float(normalize(prediction) == normalize(r)) for r in references)


def disturb(words, source):
    words = list(words)
    for _ in range(source.randint(0, 3)):
        at = source.randint(0, len(words))
        kind = source.randint(0, 5)
        if kind == 0:
            words.insert(at, source.choice(["the", "A", "an", "The"]))
        elif kind == 1:
            words.insert(at, source.choice(ODD))
        elif kind == 2 and words:
            del words[at % len(words)]
        elif kind == 3 and words:
            words[at % len(words)] = words[at % len(words)].upper()
        elif kind == 4 and words:
            words[at % len(words)] += source.choice(string.punctuation + "\u2019\u201d\u2026")
        elif words:
            words.append(words[at % len(words)])
    return source.choice([" ", " ", " ", "  ", "\n", "\u00a0"]).join(words)


def main(source_path, output):
    source = random.Random(1)
    with open(source_path, encoding="utf-8") as file:
        words = " ".join(json.loads(line)["text"] for _, line in zip(range(200), file)).split()
    lines = []
    while len(lines) < COUNT:
        at, length = source.randrange(len(words) - 20), source.choice([0, 1, 1, 2, 3, 5, 8, 15])
        answer = words[at : at + length]
        references = [disturb(answer, source) for _ in range(source.choice([1, 1, 2, 3]))]
        if source.random() < 0.1:
            references.append(source.choice(ODD))
        prediction = source.choice(ODD) if source.random() < 0.1 else disturb(answer, source)
        f1, em = score(prediction, references)
        lines.append(json.dumps({"prediction": prediction, "references": references, "f1": f1, "em": em}, ensure_ascii=False) + "\n")
    with open(output, "wb") as file:
        file.write(gzip.compress("".join(lines).encode(), 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
