"""Tokens/s of adamem generate and of Transformers' generate, measured in turn in one run; run.sh calls it."""

import argparse
import json
import pathlib
import random
import re
import statistics
import subprocess
import time

import torch
from transformers import AutoModelForCausalLM

PROMPT, NEW = 128, 64


def ours(arguments, dtype, batch, prompts):
    source = arguments.work / "prompts.jsonl"
    source.write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids in prompts))
    done = subprocess.run([arguments.adamem, "generate", "--model", arguments.work / "model", "--input", source, "--dtype", dtype,
                           "--max-new-tokens", str(NEW), "--batch-size", str(batch), "--set", f"run.threads={arguments.threads}",
                           "--set", "run.backend=cpu"], check=True, capture_output=True, text=True)
    seconds = float(re.search(r"new tokens in ([0-9.]+) s", done.stderr).group(1))
    ids = [json.loads(line)["ids"] for line in done.stdout.splitlines()]
    return seconds, ids


def theirs(model, prompts):
    inputs = torch.tensor(prompts)
    begin = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=NEW, pad_token_id=0,
                             eos_token_id=None)
    return time.perf_counter() - begin, out[:, PROMPT:].tolist()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--adamem", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = random.Random(5)
    print(f"{'dtype':9} {'batch':>5} {'adamem tok/s':>13} {'transformers':>13} {'ratio':>6}  equal ids")
    for dtype in ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(arguments.work / "model", dtype=getattr(torch, dtype)).eval()
        for batch in (1, 16):
            prompts = [[generator.randrange(1, 32000) for _ in range(PROMPT)] for _ in range(batch)]
            theirs(model, prompts)
            mine, peer = [], []
            for _ in range(arguments.repeats):
                seconds, ids = ours(arguments, dtype, batch, prompts)
                mine.append(batch * NEW / seconds)
                seconds, other = theirs(model, prompts)
                peer.append(batch * NEW / seconds)
            equal = sum(a == b for a, b in zip(ids, other))
            a, b = statistics.median(mine), statistics.median(peer)
            print(f"{dtype:9} {batch:5} {a:13.1f} {b:13.1f} {a / b:6.2f}  {equal} of {batch}", flush=True)


if __name__ == "__main__":
    main()
