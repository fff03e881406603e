"""Goldens of the multi-objective loss: weighted cross-entropy, length control and coverage, with gradients of the adapter.

The terms are written down again from their formulas, in float64 PyTorch; autograd makes the gradients. What is a fact and where an
answer ends is given, because the model of tied_h64 has no tokenizer.
"""

import torch
import torch.nn.functional as F

import model_cases
import reference as ref

WEIGHTS = {"entity": 2.0, "length": 100.0, "coverage": 0.5}
SMOOTHING = 0.1
END = 7


def make_samples(seed, vocab):
    """Three samples: one answer that ends; two answers, the second cut off; one answer without facts.

    facts: positions of fact tokens; first: those that begin a fact word (the same token twice counts once)."""
    normal = ref.Normal(seed)
    a, b, c = (normal.integers(8, vocab, count) for count in (26, 31, 12))
    a[-1] = b[14] = c[-1] = END
    a[20] = a[15]
    b[24] = b[10]
    return [
        {"input_ids": a, "labels": [-100] * 11 + a[11:], "facts": [12, 13, 15, 20, 21], "first": [12, 15, 20]},
        {
            "input_ids": b,
            "labels": [-100] * 8 + b[8:15] + [-100] * 6 + b[21:],
            "facts": [10, 11, 24, 25, 29],
            "first": [10, 24, 29],
        },
        {"input_ids": c, "labels": [-100] * 5 + c[5:], "facts": [], "first": []},
    ]


def answers_of(labels):
    """Runs of labels as (begin, end); the label at position 0 has no row that predicts it."""
    runs, begin = [], None
    for i in range(1, len(labels) + 1):
        inside = i < len(labels) and labels[i] != -100
        if inside and begin is None:
            begin = i
        if not inside and begin is not None:
            runs.append((begin, i))
            begin = None
    return runs


def length_term(log_p):
    """((E - n) / n)^2, E = sum_{t=1}^{n+1} prod_{u<t} (1 - p_u)."""
    n, expected, still = log_p.numel(), torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for u in range(n):
        expected = expected + still
        still = still * (1 - log_p[u].exp())
    return ((expected + still - n) / n) ** 2


def coverage_term(log_p):
    """-1/m sum_e log(1 - prod_t (1 - p_t(e)) + 1e-6) of log_p [n, m]."""
    return -(1 - (1 - log_p.exp()).prod(dim=0) + 1e-6).log().mean()


def objective(model, samples):
    label_tokens = sum(sum(label != -100 for label in s["labels"][1:]) for s in samples)
    parts = {name: torch.zeros((), dtype=torch.float64) for name in ("cross_entropy", "weighted", "length", "coverage")}
    for sample in samples:
        log_p = F.log_softmax(ref.sequence_logits(model, sample), dim=-1)
        labels, runs = sample["labels"], answers_of(sample["labels"])
        for i in range(1, len(labels)):
            if labels[i] == -100:
                continue
            nll = -(1 - SMOOTHING) * log_p[i - 1, labels[i]] - SMOOTHING * log_p[i - 1].mean()
            weight = 1 + WEIGHTS["entity"] * (i in sample["facts"])
            parts["cross_entropy"] = parts["cross_entropy"] + nll / label_tokens
            parts["weighted"] = parts["weighted"] + weight * nll / label_tokens
        for begin, end in runs:
            rows, share = log_p[begin - 1 : end - 1], 1 / (len(samples) * len(runs))
            facts = sorted({labels[i] for i in sample["first"] if begin <= i < end})
            if facts:
                parts["coverage"] = parts["coverage"] + share * coverage_term(rows[:, facts])
            if labels[end - 1] == END:
                parts["length"] = parts["length"] + share * length_term(rows[:, END])
    parts["loss"] = parts["weighted"] + WEIGHTS["length"] * parts["length"] + WEIGHTS["coverage"] * parts["coverage"]
    return parts


def make(directory, versions):
    base = directory.parent / "tied_h64"
    samples = make_samples(1401, model_cases.MODELS["tied_h64"]["vocab"])
    model = ref.double_model(base, base / "adapter")
    parts = objective(model, samples)
    parameters = ref.lora_parameters(model)
    gradients = ref.gradients(parts["loss"], parameters)
    plain = ref.gradients(parts["cross_entropy"], parameters)
    # Float32 halves the file; its rounding, 6e-8, is far below the tolerance of 1e-5.
    tensors = {f"grad.{n}": g.float() for n, g in gradients.items()}
    ref.write_tensors(directory / "expected.safetensors", tensors | {f"loss.{n}": v for n, v in parts.items()})
    ref.write_lines(directory / "batch.jsonl", [{"input_ids": s["input_ids"], "labels": s["labels"]} for s in samples])
    ref.write_json(
        directory / "meta.json",
        {
            "case": "loss_terms",
            "model": "tied_h64",
            "weights": WEIGHTS,
            "label_smoothing": SMOOTHING,
            "end": END,
            "facts": [s["facts"] for s in samples],
            "first": [s["first"] for s in samples],
            "parts": {n: v.item() for n, v in parts.items()},
            "smallest_relative_distance_from_plain": min(ref.relative(gradients[n], plain[n]) for n in plain),
            "versions": versions,
        },
    )


CASES = {"loss_terms": make}
