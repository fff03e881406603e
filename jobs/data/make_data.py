#!/usr/bin/env python3
"""Makes the data that the local demonstration (jobs/local.sh) trains on. The results are committed; this script is here to
show where they come from. Usage: make_data.py SHARED_DATA, a folder with text/{train,val}.jsonl (cut into documents of some
12,000 characters) and qmsum/{train,val}.jsonl (QMSum's own format).

text-{train,val}.jsonl.gz    {id, source, text}: the first documents of public-domain books; the held-out book is another
qmsum-{train,val}.jsonl.gz   QMSum's fields, one specific query per record, and only the turns that QMSum marks as relevant
                             to it ("gold" input), so that samples are a few hundred tokens long
"""
import gzip
import json
import os
import re
import sys

TRAIN_DOCUMENTS_PER_BOOK = 70
VALIDATION_DOCUMENTS = 20
# Words of the turns: longer ones would be cut by the demonstration's max_length.
MAXIMUM_WORDS = {"train": 1000, "val": 500}
# Marks of the transcription that are not speech.
NOISE = re.compile(r"\s*\{\s*(vocalsound|disfmarker|comment|pause|nonvocalsound|gap)\s*\}")

here = os.path.dirname(os.path.abspath(__file__))


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(name, records):
    # No file name and no time in the header: the same data give the same bytes.
    with open(os.path.join(here, name), "wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as out:
        for record in records:
            out.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
    print(name, len(records), "records", os.path.getsize(os.path.join(here, name)), "bytes")


def books(path, per_book):
    taken = {}
    for record in read(path):
        book = record["id"].rsplit("/", 1)[0]
        if record["source"] == "gutenberg" and taken.get(book, 0) < per_book:
            taken[book] = taken.get(book, 0) + 1
            yield record


def gold_queries(path, maximum_words):
    for meeting in read(path):
        for query in meeting["specific_query_list"]:
            wanted = sorted({i for a, b in query["relevant_text_span"] for i in range(int(a), int(b) + 1)})
            turns = []
            for i in wanted:
                turn = meeting["meeting_transcripts"][i]
                content = NOISE.sub("", turn["content"]).strip()
                if content.strip(" .,?!-"):
                    turns.append({"speaker": turn["speaker"], "content": content})
            words = sum(len(t["content"].split()) for t in turns)
            if 30 <= words <= maximum_words:
                yield {"meeting_id": meeting["meeting_id"], "domain": meeting["domain"], "topic_list": [],
                       "general_query_list": [], "specific_query_list": [query], "meeting_transcripts": turns}


shared = sys.argv[1]
for split, count in (("train", TRAIN_DOCUMENTS_PER_BOOK), ("val", VALIDATION_DOCUMENTS)):
    write("text-%s.jsonl.gz" % split, list(books(os.path.join(shared, "text", split + ".jsonl"), count)))
    write("qmsum-%s.jsonl.gz" % split, list(gold_queries(os.path.join(shared, "qmsum", split + ".jsonl"), MAXIMUM_WORDS[split])))
