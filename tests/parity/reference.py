"""Float64 Qwen2 + LoRA reference on PyTorch, Transformers and PEFT.

Transformers computes RMSNorm, the rotary angles and the eager softmax in float32 whatever the dtype of the model, so `model.double()` alone
is no float64 reference. `double_model` replaces the first two by the same formulas in float64 and uses sdpa attention, which
keeps the dtype of its inputs. How far the unpatched float32 model is from it is measured by `float32_error` and recorded beside the goldens:
a patch that changed the mathematics would show there.
"""

import json
import pathlib
import types

import numpy
import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def _rms_norm_double(self, hidden_states):
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))


def _rotary_double(self, x, position_ids):
    config = self.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    base = float(config.rope_parameters["rope_theta"])
    inverse_frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = position_ids[..., None].double() * inverse_frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def load_base(directory, dtype=torch.float32, **config_changes):
    """Base model as users load it. config_changes: rope_theta, rms_norm_eps (the negative controls)."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    given = json.loads((pathlib.Path(directory) / "config.json").read_text())
    if "rope_theta" in given:
        assert model.config.rope_parameters["rope_theta"] == given["rope_theta"], "rope_theta of config.json was not taken"
    if "rope_theta" in config_changes:
        model.config.rope_parameters["rope_theta"] = config_changes["rope_theta"]
    for module in model.modules():
        if "rms_norm_eps" in config_changes and hasattr(module, "variance_epsilon"):
            module.variance_epsilon = config_changes["rms_norm_eps"]
    model.eval()
    return model.to(dtype)


def double_model(directory, adapter=None, **config_changes):
    """Float64 model, with the PEFT adapter directory on top where one is given (its matrices trainable)."""
    model = load_base(directory, torch.float64, **config_changes)
    for module in model.modules():
        if type(module).__name__ == "Qwen2RMSNorm":
            module.forward = types.MethodType(_rms_norm_double, module)
        elif type(module).__name__ == "Qwen2RotaryEmbedding":
            module.forward = types.MethodType(_rotary_double, module)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True).double()
        model.eval()  # no dropout; gradients still flow
    return model


def float_model(directory, adapter=None):
    """The same in float32 and without any patch."""
    model = load_base(directory, torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True).float()
        model.eval()
    return model


def read_samples(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def sequence_logits(model, sample):
    """[T,V] logits of one sequence; no padding, so no attention mask."""
    return model(input_ids=torch.tensor([sample["input_ids"]]), use_cache=False).logits[0]


def loss_sums(logits, labels):
    """(sum of token losses, sum over labelled tokens of the mean negative log probability of the vocabulary, label tokens).

    labels[i] belongs to input_ids[i]; row t predicts token t+1, so the label at position 0 is never used."""
    target = torch.tensor(labels[1:])
    rows = logits[:-1][target != -100]
    target = target[target != -100]
    log_probability = F.log_softmax(rows, dim=-1)
    nll = -log_probability.gather(1, target[:, None]).sum()
    return nll, -log_probability.mean(dim=-1).sum(), target.numel()


def list_loss(model, samples):
    """Logits of every sequence, token-weighted mean loss over the list, the uniform part for label smoothing, label tokens."""
    logits = [sequence_logits(model, sample) for sample in samples]
    sums = [loss_sums(l, s["labels"]) for l, s in zip(logits, samples)]
    tokens = sum(count for _, _, count in sums)
    return logits, sum(s[0] for s in sums) / tokens, sum(s[1] for s in sums) / tokens, tokens


def peft_name(name):
    """Parameter name as PEFT writes it in adapter_model.safetensors."""
    return name.replace(".default.weight", ".weight")


def lora_parameters(model):
    """Ordered name -> parameter of every LoRA matrix."""
    return {peft_name(n): p for n, p in sorted(model.named_parameters()) if ".lora_" in n}


def gradients(loss, parameters):
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)))


def float32_error(directory, adapter, samples, logits, loss, reference_gradients):
    """Distance of unpatched float32 Transformers, with its own loss, from the float64 result: the head-room of the tolerances."""
    model = float_model(directory, adapter)
    parameters = lora_parameters(model) if adapter else dict(model.named_parameters())
    if not adapter:
        for p in parameters.values():
            p.requires_grad_(True)
    tokens = sum(sum(label != -100 for label in s["labels"][1:]) for s in samples)
    outputs = [
        model(
            input_ids=torch.tensor([s["input_ids"]]), labels=torch.tensor([s["labels"]]), num_items_in_batch=tokens, use_cache=False
        )
        for s in samples
    ]
    float_logits, float_loss = [o.logits[0] for o in outputs], sum(o.loss for o in outputs)
    float_gradients = gradients(float_loss, parameters)
    return {
        "logits_max_abs": max((a.double() - b).abs().max().item() for a, b in zip(float_logits, logits)),
        "loss_abs": abs(float_loss.item() - loss.item()),
        "gradient_max_relative": max(relative(float_gradients[n].double(), g) for n, g in reference_gradients.items()),
    }


def relative(a, b):
    """Norm-wise distance of a from b."""
    norm = b.norm().item()
    return (a - b).norm().item() / norm if norm > 0 else a.norm().item()


class Normal:
    """Normal numbers from numpy's legacy generator, whose stream is frozen for good."""

    def __init__(self, seed):
        self.generator = numpy.random.RandomState(seed)

    def tensor(self, shape, std, mean=0.0):
        return torch.from_numpy(mean + std * self.generator.standard_normal(tuple(shape))).float()

    def integers(self, low, high, count):
        return [int(v) for v in self.generator.randint(low, high, count)]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_lines(path, records):
    path.write_text("".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records))


def write_tensors(path, tensors):
    save_file({k: v.detach().contiguous() for k, v in sorted(tensors.items())}, path)
    path.chmod(0o644)
