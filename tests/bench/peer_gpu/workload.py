"""The two workloads: model shapes, samples, adapter, and how many FLOPs they cost.

A: Qwen2.5-3B, LoRA r=16 on q, v, up, down, lengths of CNN/DailyMail (cnn_dailymail_lengths.json), labels on the completion only.
B: Qwen2.5-7B, LoRA r=16 on all seven projections, sequences of 4096 tokens, every token a label.
Token ids are random. An epoch is all samples once: `steps` optimizer steps of `global_batch` samples. Nothing here needs torch.
"""

import dataclasses
import json
import pathlib
import random

COMMON = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
}


def shape(hidden, layers, heads, key_value_heads, intermediate, vocabulary, tied):
    return COMMON | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate,
        "max_window_layers": layers,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    config: dict
    targets: tuple
    max_length: int
    global_batch: int
    steps: int
    recipe_micro_batch: int
    our_micro_batches: tuple
    peer_micro_batches: tuple
    gradient_checkpointing: str
    packed: bool
    length_divisor: int = 1
    learning_rate: float = 1e-4
    rank: int = 16
    alpha: int = 32


FOUR = ("q_proj", "v_proj", "up_proj", "down_proj")
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CANDIDATES = (1, 2, 4, 8, 16)
TINY = shape(192, 2, 3, 1, 512, 512, True)


def get(name, tiny):
    if name == "A":
        full = Workload(
            "A", "Qwen2.5-3B, CNN/DailyMail lengths", shape(2048, 36, 16, 2, 11008, 151936, True), FOUR, 2048, 48, 2, 4, (4, 16),
            CANDIDATES, "auto", False,
        )
        small = dict(title="tiny model, CNN/DailyMail lengths / 32", config=TINY, max_length=64, global_batch=8, length_divisor=32)
    else:
        full = Workload(
            "B", "Qwen2.5-7B, T=4096 packed", shape(3584, 28, 28, 4, 18944, 152064, False), SEVEN, 4096, 16, 1, 1, (1, 2),
            CANDIDATES, "none", True,
        )
        small = dict(title="tiny model, T=64 packed", config=TINY, max_length=64, global_batch=4)
    if not tiny:
        return full
    return dataclasses.replace(full, **small, learning_rate=1e-2, our_micro_batches=(1, 4), peer_micro_batches=(1, 2, 4), recipe_micro_batch=2)


def lengths(workload):
    """(prompt, completion) tokens of every sample of an epoch. A: evenly spaced quantiles of the distribution, shuffled."""
    count = workload.global_batch * workload.steps
    if workload.packed:
        return [(0, workload.max_length)] * count
    file = pathlib.Path(__file__).with_name("cnn_dailymail_lengths.json")
    pairs = sorted(json.loads(file.read_text())["pairs"], key=sum)
    chosen = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
    random.Random(42).shuffle(chosen)
    return [tuple(max(1, n // workload.length_divisor) for n in pair) for pair in chosen]


def samples(workload):
    generator = random.Random(43)
    result = []
    for prompt, completion in lengths(workload):
        ids = [generator.randrange(min(workload.config["vocab_size"], 151643)) for _ in range(prompt + completion)]
        result.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return result


def real_tokens(items):
    return sum(len(s["input_ids"]) for s in items)


def weights(config):
    """Frozen weights of the body's linear layers, and of the head."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    key_value = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    body = config["num_hidden_layers"] * (2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * intermediate)
    return body, config["vocab_size"] * hidden


def model_flops(config, items):
    """Convention B: 4 FLOPs per frozen weight and token (head too), causal attention in full: 3 (2 T^2 K L) per sequence."""
    body, head = weights(config)
    squared = sum(len(s["input_ids"]) ** 2 for s in items)
    return 4 * (body + head) * real_tokens(items) + 6 * config["hidden_size"] * config["num_hidden_layers"] * squared
