"""Writes prediction-reference pairs of CNN/DailyMail length: highlights against the first three sentences of the article.

    make_pairs.py CNN_DAILYMAIL.jsonl COUNT >PAIRS.jsonl

CNN/DailyMail's test set has 11,490 pairs. Where the file has fewer rows they come again, each time with other sentences of
the article as prediction, so that no pair occurs twice.
"""

import json
import re
import sys


def main(path, count):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for i in range(count):
        row, turn = rows[i % len(rows)], i // len(rows)
        sentences = re.split(r"(?<=[.!?]) +|\n+", row["article"])
        start = turn % max(len(sentences) - 2, 1)
        prediction = "\n".join(sentences[start : start + 3])
        print(json.dumps({"prediction": prediction, "references": [row["highlights"]]}, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
