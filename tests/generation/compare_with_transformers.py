"""200 prompts of mixed length, 256 new tokens, greedy, float32: adamem generate against Transformers' generate.

    python compare_with_transformers.py ADAMEM [--prompts 200] [--new-tokens 256]

A first difference is accepted only where Transformers' two best logits lie closer than 1e-5; they are counted and printed.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

DATA = pathlib.Path(__file__).parent / "data"


def theirs(model, prompt, new_tokens):
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, pad_token_id=0,
                             output_logits=True, return_dict_in_generate=True)
    return out.sequences[0, len(prompt):].tolist(), out.logits


def compare(adamem, name, count, new_tokens):
    model = AutoModelForCausalLM.from_pretrained(DATA / name, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=None)
    config = json.loads((DATA / name / "config.json").read_text())
    generator = random.Random(17)
    prompts = [[generator.randrange(config["vocab_size"]) for _ in range(generator.randint(1, 256))] for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for file in ("config.json", "model.safetensors"):  # no generation_config.json: nothing ends early
            (folder / file).symlink_to(DATA / name / file)
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"input_ids": p}) + "\n" for p in prompts))
        done = subprocess.run([adamem, "generate", "--model", folder, "--input", folder / "prompts.jsonl", "--dtype", "float32",
                               "--max-new-tokens", str(new_tokens), "--set", "run.backend=cpu"],
                              check=True, stdout=subprocess.PIPE, text=True)
    ties = wrong = tokens = 0
    for number, (prompt, line) in enumerate(zip(prompts, done.stdout.splitlines(), strict=True)):
        mine = json.loads(line)["ids"]
        expected, logits = theirs(model, prompt, new_tokens)
        if mine == expected:
            tokens += len(mine)
            continue
        step = next(i for i in range(new_tokens) if mine[i] != expected[i])
        tokens += step
        best = torch.topk(logits[step][0], 2).values
        gap = float(best[0] - best[1])
        print(f"{name}: prompt {number} differs at token {step}, gap of the two best logits {gap:g}")
        if gap < 1e-5:
            ties += 1
        else:
            wrong += 1
    print(f"{name}: {count} prompts, {tokens} tokens equal, {ties} first differences at ties, {wrong} wrong", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("adamem")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(1 if sum(compare(arguments.adamem, n, arguments.prompts, arguments.new_tokens) for n in ("tied", "untied")) else 0)


if __name__ == "__main__":
    main()
