"""Goldens of forward, loss and gradients on small random Qwen2 models, with LoRA and with every base tensor trained."""

import math
import shutil
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

import reference as ref

ALL_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMOOTHING = 0.1

MODELS = {
    "tied_h64": dict(seed=1001, hidden=128, heads=2, kv_heads=1, layers=2, intermediate=64, vocab=256, tied=True, dtype="bfloat16"),
    "untied_h128": dict(seed=1002, hidden=256, heads=2, kv_heads=1, layers=2, intermediate=64, vocab=128, tied=False, dtype="bfloat16"),
    "untied_h64": dict(seed=1003, hidden=192, heads=3, kv_heads=1, layers=1, intermediate=48, vocab=96, tied=False, dtype="bfloat16"),
}
ADAPTERS = {
    "tied_h64": dict(r=4, lora_alpha=8, target_modules=ALL_SEVEN),
    "untied_h128": dict(
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        use_rslora=True,
        rank_pattern={"layers.0.self_attn.q_proj": 2, "layers.1.mlp.(up|down)_proj": 5},
        alpha_pattern={"layers.0.self_attn.q_proj": 6, "layers.1.mlp.(up|down)_proj": 7},
    ),
}
FULL = {"tied_h64", "untied_h64"}  # base tensors trained in full, no adapter


def write_model(directory, spec):
    """config.json in the form in which Qwen2.5 ships it, config_transformers5.json as Transformers 5 writes it, and random weights.

    Weights of a bfloat16 model are rounded to bfloat16 first: float32 and float64 readers then hold the same numbers."""
    ref.write_json(
        directory / "config.json",
        {
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 0,
            "hidden_act": "silu",
            "hidden_size": spec["hidden"],
            "initializer_range": 0.02,
            "intermediate_size": spec["intermediate"],
            "max_position_embeddings": 256,
            "max_window_layers": spec["layers"],
            "model_type": "qwen2",
            "num_attention_heads": spec["heads"],
            "num_hidden_layers": spec["layers"],
            "num_key_value_heads": spec["kv_heads"],
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "sliding_window": 256,
            "tie_word_embeddings": spec["tied"],
            "torch_dtype": spec["dtype"],
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": spec["vocab"],
        },
    )
    with tempfile.TemporaryDirectory() as temporary:
        AutoConfig.from_pretrained(directory).save_pretrained(temporary)
        shutil.copyfile(f"{temporary}/config.json", directory / "config_transformers5.json")

    normal = ref.Normal(spec["seed"])
    dtype = getattr(torch, spec["dtype"])
    width, kv, inner = spec["hidden"], spec["kv_heads"] * spec["hidden"] // spec["heads"], spec["intermediate"]

    def matrix(rows, columns):
        """Deviation 0.7 / sqrt(columns): outputs of normed inputs stay near 0.7, so float32 leaves room below the tolerances."""
        return normal.tensor((rows, columns), 0.7 / math.sqrt(columns))

    tensors = {"model.embed_tokens.weight": matrix(spec["vocab"], width)}
    for layer in range(spec["layers"]):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", width), ("k", kv), ("v", kv)):
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = matrix(rows, width)
            tensors[f"{prefix}self_attn.{name}_proj.bias"] = normal.tensor((rows,), 0.1)
        tensors[f"{prefix}self_attn.o_proj.weight"] = matrix(width, width)
        tensors[f"{prefix}mlp.gate_proj.weight"] = matrix(inner, width)
        tensors[f"{prefix}mlp.up_proj.weight"] = matrix(inner, width)
        tensors[f"{prefix}mlp.down_proj.weight"] = matrix(width, inner)
        tensors[f"{prefix}input_layernorm.weight"] = normal.tensor((width,), 0.1, 1.0)
        tensors[f"{prefix}post_attention_layernorm.weight"] = normal.tensor((width,), 0.1, 1.0)
    tensors["model.norm.weight"] = normal.tensor((width,), 0.1, 1.0)
    if not spec["tied"]:
        tensors["lm_head.weight"] = matrix(spec["vocab"], width)
    ref.write_tensors(directory / "model.safetensors", {k: v.to(dtype) for k, v in tensors.items()})


def write_adapter(directory, model_directory, seed, a_std, b_std, **lora):
    """PEFT directory with random A and B (B non-zero, so that every gradient is non-zero), written by PEFT itself."""
    model = get_peft_model(ref.load_base(model_directory), LoraConfig(task_type="CAUSAL_LM", **lora))
    normal = ref.Normal(seed)
    with torch.no_grad():
        for name, parameter in ref.lora_parameters(model).items():
            parameter.copy_(normal.tensor(parameter.shape, a_std if "lora_A" in name else b_std))
    model.peft_config["default"].base_model_name_or_path = ""
    # PEFT keeps the targets as a set, whose order changes from process to process.
    model.peft_config["default"].target_modules = sorted(lora["target_modules"])
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        directory.mkdir(exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(f"{temporary}/{name}", directory / name)


def scalings(model):
    """Module name -> [rank, scaling], as PEFT resolved rank_pattern, alpha_pattern and use_rslora."""
    return {
        name.removeprefix("base_model.model."): [module.r["default"], module.scaling["default"]]
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def make_batch(seed, vocab):
    """Six sequences: masked prompt; one token; every label set; two tokens; holes in the mask; no trained label at all.

    Labels at position 0 (sequences 2 and 5) must be ignored, and so must a sequence without a label."""
    normal = ref.Normal(seed)
    ids = [normal.integers(2, vocab, count) for count in (23, 1, 37, 2, 17, 12)]
    return [
        {"input_ids": ids[0], "labels": [-100] * 9 + ids[0][9:]},
        {"input_ids": ids[1], "labels": [-100]},
        {"input_ids": ids[2], "labels": list(ids[2])},
        {"input_ids": ids[3], "labels": [-100] + ids[3][1:]},
        {"input_ids": ids[4], "labels": [-100 if i % 3 == 1 or i < 2 else v for i, v in enumerate(ids[4])]},
        {"input_ids": ids[5], "labels": ids[5][:1] + [-100] * 11},
    ]


def difference(logits, loss, changed_logits, changed_loss):
    return {
        "logits_max_abs": max((a - b).abs().max().item() for a, b in zip(logits, changed_logits)),
        "loss_abs": abs(loss.item() - changed_loss.item()),
    }


def joined_logits(model, samples, mask):
    """Logits of the sequences laid end to end (positions restart) under a boolean attention mask [T,T], True = attend."""
    ids = [i for s in samples for i in s["input_ids"]]
    positions = [p for s in samples for p in range(len(s["input_ids"]))]
    additive = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))[None, None]
    logits = model(
        input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]), attention_mask=additive, use_cache=False
    ).logits[0]
    return torch.split(logits, [len(s["input_ids"]) for s in samples])


def loss_of(logits, samples):
    sums = [ref.loss_sums(l, s["labels"]) for l, s in zip(logits, samples)]
    return sum(s[0] for s in sums) / sum(s[2] for s in sums)


@torch.no_grad()
def controls(directory, adapter, samples, logits, loss):
    """By how much a wrong model differs: the negative controls must fail by far more than the tolerance."""
    result = {}
    for name, change in (("rope_theta_x10", {"rope_theta": 1e7}), ("rms_norm_eps_x100", {"rms_norm_eps": 1e-4})):
        wrong_logits, wrong_loss, _, _ = ref.list_loss(ref.double_model(directory, adapter, **change), samples)
        result[name] = difference(logits, loss, wrong_logits, wrong_loss)

    shifted = [{**s, "labels": s["labels"][1:] + [-100]} for s in samples]
    result["labels_shifted_by_one"] = {"logits_max_abs": 0.0, "loss_abs": abs(loss.item() - loss_of(logits, shifted).item())}

    model = ref.double_model(directory, adapter)
    owner = torch.tensor([i for i, s in enumerate(samples) for _ in s["input_ids"]])
    index = torch.arange(owner.numel())
    same, back = owner[:, None] == owner[None, :], index[:, None] - index[None, :]
    right = joined_logits(model, samples, same & (back >= 0))
    assert max((a - b).abs().max().item() for a, b in zip(logits, right)) < 1e-12, "packed and separate sequences disagree"
    for name, mask in (("causal_mask_sees_next_token", same & (back >= -1)), ("sequences_not_separated", back >= 0)):
        wrong_logits = joined_logits(model, samples, mask)
        result[name] = difference(logits, loss, wrong_logits, loss_of(wrong_logits, samples))
    return result


@torch.no_grad()
def greedy(model, prompts, count, eos):
    """Greedy continuations of token ids, the smallest gap between best and second logit beside each."""
    records = []
    for prompt in prompts:
        ids, gap = list(prompt), float("inf")
        while len(ids) < len(prompt) + count and (len(ids) == len(prompt) or ids[-1] != eos):
            top = ref.sequence_logits(model, {"input_ids": ids})[-1].topk(2)
            gap = min(gap, (top.values[0] - top.values[1]).item())
            ids.append(top.indices[0].item())
        records.append({"input_ids": list(prompt), "ids": ids[len(prompt) :], "smallest_gap": gap})
    return records


def expected(directory, adapter, samples, parameters_of):
    """Tensors of an expected file and the record for meta.json."""
    model = ref.double_model(directory, adapter)
    logits, loss, uniform, tokens = ref.list_loss(model, samples)
    smoothed = (1 - SMOOTHING) * loss + SMOOTHING * uniform
    gradients = ref.gradients(loss, parameters_of(model))
    smallest = min(g.norm().item() for g in gradients.values())
    tensors = {f"logits.{i}": l for i, l in enumerate(logits)}
    tensors |= {"loss": loss, "loss_label_smoothing_0.1": smoothed}
    record = {
        "label_tokens": tokens,
        "loss": loss.item(),
        "smallest_gradient_norm": smallest,
        "logits_abs_max": max(l.abs().max().item() for l in logits),
        "float32_transformers_error": ref.float32_error(directory, adapter, samples, logits, loss, gradients),
        "controls": controls(directory, adapter, samples, logits, loss),
    }
    return model, tensors, gradients, record


def make_case(name):
    def make(directory, versions):
        spec = MODELS[name]
        write_model(directory, spec)
        samples = make_batch(spec["seed"] + 100, spec["vocab"])
        ref.write_lines(directory / "batch.jsonl", samples)
        meta = {"case": name, "model": spec, "versions": versions}
        if name in ADAPTERS:
            write_adapter(directory / "adapter", directory, spec["seed"] + 200, 0.08, 0.06, **ADAPTERS[name])
            model, tensors, gradients, record = expected(directory, directory / "adapter", samples, ref.lora_parameters)
            tensors |= {f"grad.{n}": g for n, g in gradients.items()}
            ref.write_tensors(directory / "expected.safetensors", tensors)
            prompts = [s["input_ids"][:length] for s, length in zip(samples, (9, 1, 20, 2))]
            ref.write_lines(directory / "greedy.jsonl", greedy(model, prompts, 12, 0))
            meta["lora"] = record | {"modules": scalings(model)}
        if name in FULL:
            everything = lambda model: dict(model.named_parameters())
            _, tensors, gradients, record = expected(directory, None, samples, everything)
            # Float32 halves the file; its rounding, 6e-8, is far below the tolerance of 1e-5.
            tensors |= {f"grad.{n}": g.float() for n, g in gradients.items()}
            ref.write_tensors(directory / "expected_full.safetensors", tensors)
            meta["full"] = record
        ref.write_json(directory / "meta.json", meta)

    return make


CASES = {name: make_case(name) for name in MODELS}
