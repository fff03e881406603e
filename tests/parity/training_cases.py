"""Goldens of the optimizer alone and of twenty whole training steps on real text."""

import pathlib

import torch
from transformers import get_cosine_schedule_with_warmup

import model_cases
import reference as ref

DATA = pathlib.Path(__file__).resolve().parent / "data"

ADAMW = dict(
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    learning_rates=[2e-3, 1e-3, 0.0, 5e-4, 1e-3],
    weight_decay={"matrix": 0.1, "wide": 0.01, "bias": 0.0},
)
TRAIN = dict(
    seed=3001,
    steps=20,
    global_batch_size=4,
    per_device_train_batch_size=2,
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=4,
    weight_decay=0.01,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    max_grad_norm=1.0,
    shuffle=False,
    lora_r=8,
    lora_alpha=8,
)


def adamw(parameters, weight_decay, settings):
    groups = [{"params": [p], "weight_decay": weight_decay[n]} for n, p in parameters.items()]
    return torch.optim.AdamW(groups, lr=0.0, betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"], foreach=False)


def make_adamw(directory, versions):
    """Five steps from given gradients. Each has elements of every size, exact zeros among them: sqrt(v) meets epsilon."""
    normal = ref.Normal(2001)
    shapes = {"matrix": (7, 5), "wide": (3, 70), "bias": (11,)}
    inputs = {f"param.{n}": normal.tensor(shape, 0.5) for n, shape in shapes.items()}
    parameters = {n: torch.nn.Parameter(inputs[f"param.{n}"].double()) for n in shapes}
    optimizer = adamw(parameters, ADAMW["weight_decay"], ADAMW)
    outputs = {}
    for step, lr in enumerate(ADAMW["learning_rates"]):
        for n, p in parameters.items():
            exponent = normal.tensor(shapes[n], 3.0, -4.0).clamp(-10, 1)
            gradient = normal.tensor(shapes[n], 1.0) * 10.0**exponent
            gradient.view(-1)[step :: 6] = 0.0
            inputs[f"grad.{step}.{n}"] = gradient
            p.grad = gradient.double()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        for n, p in parameters.items():
            state = optimizer.state[p]
            outputs[f"param.{step}.{n}"] = p.detach().clone()
            outputs[f"exp_avg.{step}.{n}"] = state["exp_avg"].clone()
            outputs[f"exp_avg_sq.{step}.{n}"] = state["exp_avg_sq"].clone()
    ref.write_tensors(directory / "inputs.safetensors", inputs)
    ref.write_tensors(directory / "expected.safetensors", outputs)
    ref.write_json(directory / "meta.json", {"case": "adamw", "seed": 2001, "settings": ADAMW, "versions": versions})


def text_samples(text, count):
    """Consecutive pieces of the text as bytes, 20 to 68 of them, a prompt of 5 to 25 masked bytes, and id 0 as the end token.

    Every fifth global batch has few labels: its gradient is larger, so that clipping bites there and not everywhere."""
    data, samples, start = text.encode("ascii"), [], 0
    for i in range(count):
        length, prompt = 20 + (i * 29) % 49, 5 + (i * 7) % 21
        prompt = length - 1 - i % 3 if i // 4 % 5 == 2 else min(prompt, length - 3)
        ids = list(data[start : start + length]) + [0]
        assert len(ids) == length + 1, "the text is too short"
        samples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
        start += length
    return samples


def label_tokens(sample):
    return sum(label != -100 for label in sample["labels"][1:])


def run_training(model, samples, lr_of_next_update=False, loss_of_micro_batches=False, **changes):
    """Twenty steps as Transformers' Trainer takes them; returns the records of each step and the LoRA matrices at the end.

    The named arguments and changes of TRAIN make the wrong runs that `controls` measures."""
    settings = TRAIN | changes
    parameters = ref.lora_parameters(model)
    names = {"beta1": settings["adam_beta1"], "beta2": settings["adam_beta2"], "epsilon": settings["adam_epsilon"]}
    optimizer = adamw(parameters, dict.fromkeys(parameters, settings["weight_decay"]), names)
    for group in optimizer.param_groups:
        group["lr"] = settings["learning_rate"]
    scheduler = get_cosine_schedule_with_warmup(optimizer, settings["warmup_steps"], settings["steps"])
    size, micro, records = settings["global_batch_size"], settings["per_device_train_batch_size"], []
    for step in range(settings["steps"]):
        batch = samples[step * size : (step + 1) * size]
        tokens = sum(label_tokens(s) for s in batch)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for first in range(0, size, micro):
            part = batch[first : first + micro]
            nll = sum(ref.loss_sums(ref.sequence_logits(model, s), s["labels"])[0] for s in part)
            divisor = sum(label_tokens(s) for s in part) * size / micro if loss_of_micro_batches else tokens
            (nll / divisor).backward()
            total += nll.item()
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), settings["max_grad_norm"]).item()
        if lr_of_next_update:
            scheduler.step()
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if not lr_of_next_update:
            scheduler.step()
        records.append({"step": step + 1, "lr_used": lr, "loss": total / tokens, "grad_norm": norm, "label_tokens": tokens})
    return records, {n: p.detach().clone() for n, p in parameters.items()}


def update_error(final, start, other):
    """Norm-wise distance of the update other - start from final - start, the largest and the smallest over the matrices."""
    errors = [ref.relative(other[n].double() - start[n], final[n] - start[n]) for n in final]
    return {"update_max_relative": max(errors), "update_min_relative": min(errors)}


def make_train20(directory, versions):
    """The base model is the one of tied_h64 (256 token ids: bytes); LoRA on all seven, starting from a non-zero B."""
    base = directory.parent / "tied_h64"
    text = (DATA / "train20" / "walden.txt").read_text()
    samples = text_samples(text, TRAIN["steps"] * TRAIN["global_batch_size"])
    ref.write_lines(directory / "train.jsonl", samples)
    model_cases.write_adapter(
        directory / "adapter", base, TRAIN["seed"], 0.05, 0.02,
        r=TRAIN["lora_r"], lora_alpha=TRAIN["lora_alpha"], target_modules=model_cases.ALL_SEVEN,
    )
    model = ref.double_model(base, directory / "adapter")
    start = {n: p.detach().clone() for n, p in ref.lora_parameters(model).items()}
    records, final = run_training(model, samples)
    assert 2 < sum(r["grad_norm"] > TRAIN["max_grad_norm"] for r in records) < 18, "clipping must bite at some steps only"

    wrong = {
        "no_clipping": {"max_grad_norm": 1e9},
        "no_weight_decay": {"weight_decay": 0.0},
        "adam_epsilon_x100": {"adam_epsilon": 1e-6},
        "learning_rate_of_next_update": {"lr_of_next_update": True},
        "loss_averaged_over_micro_batches": {"loss_of_micro_batches": True},
    }
    adapter = directory / "adapter"
    controls = {
        name: update_error(final, start, run_training(ref.double_model(base, adapter), samples, **change)[1])
        for name, change in wrong.items()
    }
    float32 = update_error(final, start, run_training(ref.float_model(base, adapter), samples)[1])
    ref.write_tensors(directory / "expected.safetensors", {f"final.{n}": t for n, t in final.items()})
    ref.write_json(
        directory / "meta.json",
        {
            "case": "train20",
            "model": "../tied_h64",
            "settings": TRAIN,
            "steps": records,
            "controls": controls,
            "float32_transformers_error": float32,
            "smallest_update_norm": min((final[n] - start[n]).norm().item() for n in final),
            "versions": versions,
        },
    )


CASES = {"adamw": make_adamw, "train20": make_train20}
