"""Writes 20,000 words and their stems by NLTK's PorterStemmer: tests/data/metrics/porter.txt.gz.

    python3 make_porter_goldens.py TEXT.jsonl OUTPUT.txt.gz     # needs nltk; made with nltk 3.10.4

The words: every irregular form and made-up words around every suffix of the rules (a third), then words of TEXT.jsonl, a
JSON lines file with "text" of public-domain books, evenly from frequent to rare. One line per word: WORD STEM.
"""

import collections
import gzip
import json
import random
import re
import sys

from nltk.stem import porter

COUNT = 20000
SUFFIXES = (
    "sses ies ss s ied eed ed ing ated bled ized ating bling izing y ational tional enci anci izer bli abli alli entli eli ousli "
    "ization ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance "
    "ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll ally ically fully ingly edly yed ying"
).split()


def made_up(stemmer, random_source):
    words = {form for forms in stemmer.pool.items() for form in forms}
    while len(words) < COUNT // 3:
        letters = "".join(random_source.choice("bcdlstwxyz" if random_source.random() < 0.6 else "aeiouy") for _ in range(random_source.randint(0, 5)))
        digits = str(random_source.randint(0, 99)) if random_source.random() < 0.03 else ""
        words.add(letters + digits + random_source.choice(SUFFIXES) + random_source.choice(["", "", "", "s", "y", "ly"]))
    return sorted(words)


def real(path):
    counts = collections.Counter()
    with open(path, encoding="utf-8") as file:
        for line in file:
            counts.update(re.findall(r"[a-z0-9]+", json.loads(line)["text"].lower()))
    return sorted(counts, key=lambda word: (-counts[word], word))


def main(source, output):
    stemmer = porter.PorterStemmer()
    words = dict.fromkeys(made_up(stemmer, random.Random(1)))
    candidates = [word for word in real(source) if word not in words]
    wanted = COUNT - len(words)
    words.update(dict.fromkeys(candidates[i * len(candidates) // wanted] for i in range(wanted)))
    lines = [f"{word} {stemmer.stem(word)}\n" for word in sorted(words)]
    assert len(lines) == COUNT
    with open(output, "wb") as file:
        file.write(gzip.compress("".join(lines).encode(), 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
