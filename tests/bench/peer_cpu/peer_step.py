"""One LoRA training step (forward, backward, clip, AdamW) of Transformers + PEFT on the CPU, timed: the peer that `adamem bench` is compared with.

    python peer_step.py --model DIR --adapter DIR --input tokens.jsonl --variant float32 --threads 2 --steps 5
    python peer_step.py --model DIR --make-adapter DIR [--rank 16]

--input holds lines {"input_ids", "labels"}: one micro-batch, the same at every step. Several lines are laid end to end with restarting
positions, which Transformers turns into a block mask (--layout packed), or padded to the longest (--layout padded). No dropout; fused AdamW.
Prints one JSON object: step_seconds (warm-up steps left out), loss (of the first step) and losses, grad_norm, tokens, tokens_per_second (of the median
step), peak_rss_bytes (whole process) and peak_rss_step_bytes (since the model was loaded), versions.

Variants: float32; and three ways in which users run a bfloat16 base: adapters in float32 (PEFT's default), adapters in bfloat16
(autocast_adapter_dtype=False), float32 adapters under torch.autocast (Trainer's bf16=True).
"""

import argparse
import json
import pathlib
import platform
import resource
import statistics
import sys
import time
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

VARIANTS = {
    "float32": dict(dtype=torch.float32, autocast_adapter_dtype=True, autocast=False),
    "bfloat16-adapters-float32": dict(dtype=torch.bfloat16, autocast_adapter_dtype=True, autocast=False),
    "bfloat16-adapters-bfloat16": dict(dtype=torch.bfloat16, autocast_adapter_dtype=False, autocast=False),
    "bfloat16-autocast": dict(dtype=torch.bfloat16, autocast_adapter_dtype=True, autocast=True),
}
ALL_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(model_directory, directory, rank, seed):
    """PEFT directory with a small random B, so that both programs show at once if they read it differently."""
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=ALL_SEVEN))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.01)
    model.save_pretrained(directory)


def load(arguments):
    variant = VARIANTS[arguments.variant]
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=variant["dtype"], attn_implementation="sdpa")
    model = PeftModel.from_pretrained(
        model, arguments.adapter, is_trainable=True, autocast_adapter_dtype=variant["autocast_adapter_dtype"]
    )
    if variant["dtype"] == torch.bfloat16 and not variant["autocast_adapter_dtype"]:
        for name, parameter in model.named_parameters():  # the file is float32, and loading keeps the dtype of the file
            if ".lora_" in name:
                parameter.data = parameter.data.bfloat16()
    model.train()
    return model


def make_batch(samples, layout):
    """Model inputs of one micro-batch and its number of label tokens. The label of each first token is dropped, as the loss shifts."""
    lengths = [len(s["input_ids"]) for s in samples]
    labels = [[-100] + s["labels"][1:] for s in samples]
    tokens = sum(l != -100 for row in labels for l in row)
    if len(samples) == 1 or layout == "packed":
        inputs = {
            "input_ids": torch.tensor([[i for s in samples for i in s["input_ids"]]]),
            "labels": torch.tensor([[l for row in labels for l in row]]),
        }
        if len(samples) > 1:
            inputs["position_ids"] = torch.tensor([[p for n in lengths for p in range(n)]])
    else:
        longest = max(lengths)
        pad = lambda rows, value: torch.tensor([row + [value] * (longest - len(row)) for row in rows])
        inputs = {
            "input_ids": pad([s["input_ids"] for s in samples], 0),
            "labels": pad(labels, -100),
            "attention_mask": pad([[1] * n for n in lengths], 0),
        }
    return inputs, tokens, sum(lengths)


def train_step(model, optimizer, parameters, inputs, label_tokens, autocast):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model(**inputs, use_cache=False, num_items_in_batch=label_tokens).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), norm.item()


def reset_peak():
    """Lets the kernel measure the high-water mark anew; false where that is not allowed."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def peak_since_reset():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def measure(arguments):
    torch.set_num_threads(arguments.threads)
    samples = [json.loads(line) for line in pathlib.Path(arguments.input).read_text().splitlines()]
    model = load(arguments)
    loading_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    inputs, label_tokens, tokens = make_batch(samples, arguments.layout)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.learning_rate, weight_decay=0.0, fused=True)
    resettable = reset_peak()
    seconds, losses, norms = [], [], []
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        loss, norm = train_step(model, optimizer, parameters, inputs, label_tokens, VARIANTS[arguments.variant]["autocast"])
        seconds.append(time.perf_counter() - start)
        losses.append(loss)
        norms.append(norm)
    step_peak = peak_since_reset() if resettable else None
    seconds = seconds[arguments.warmup :]
    return {
        "program": "transformers+peft",
        "variant": arguments.variant,
        "layout": arguments.layout if len(samples) > 1 else "one sequence",
        "threads": arguments.threads,
        "trainable_parameters": sum(p.numel() for p in parameters),
        "tokens": tokens,
        "label_tokens": label_tokens,
        "step_seconds": seconds,
        "tokens_per_second": tokens / statistics.median(seconds),
        "loss": losses[0],
        "losses": losses,
        "grad_norm": norms[0],
        "peak_rss_bytes": max(loading_peak, step_peak or 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        "peak_rss_step_bytes": step_peak,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--adapter", help="PEFT directory to train from")
    parser.add_argument("--make-adapter", metavar="DIR", help="write a random PEFT directory for --model and stop")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--input", help="JSON lines, one micro-batch")
    parser.add_argument("--variant", choices=VARIANTS, default="float32")
    parser.add_argument("--layout", choices=["packed", "padded"], default="packed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-9, help="tiny: every step then has the same loss")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.make_adapter:
        make_adapter(arguments.model, arguments.make_adapter, arguments.rank, arguments.seed)
        return 0
    if not arguments.adapter or not arguments.input:
        parser.error("--adapter and --input are needed, or --make-adapter")
    print(json.dumps(measure(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
