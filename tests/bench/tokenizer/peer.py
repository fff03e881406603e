"""Seconds that Hugging Face tokenizers needs for the same file on one thread; the other half of run.sh.

The faster of encode_batch and encode_batch_fast counts, in a process that keeps to one thread.
"""
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gzip
import json
import sys
import time

from tokenizers import Tokenizer


def load(directory):
    path = os.path.join(directory, "tokenizer.json")
    if os.path.exists(path):
        return Tokenizer.from_file(path)
    with gzip.open(path + ".gz", "rb") as file:
        return Tokenizer.from_buffer(file.read())


def main():
    directory, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    best = None
    for method in ("encode_batch", "encode_batch_fast"):
        encode = getattr(load(directory), method)  # loaded anew: an empty cache, as on the other side
        start = time.perf_counter()
        encodings = encode(texts, add_special_tokens=False)
        seconds = time.perf_counter() - start
        if best is None or seconds < best:
            best = seconds
    tokens = checksum = 0
    for encoding in encodings:
        tokens += len(encoding.ids)
        for token in encoding.ids:
            checksum = (checksum * 31 + token) % 1000000007
    size = sum(len(text.encode()) for text in texts)
    print(json.dumps({"seconds": best, "bytes": size, "tokens": tokens, "checksum": checksum}))


main()
