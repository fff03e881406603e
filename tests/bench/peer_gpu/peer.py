"""The peer: one LoRA step of Transformers + PEFT, in the form that `Form` names. One model at a time is on the device."""

import contextlib
import dataclasses
import gc
import json
import pathlib
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peer_cpu"))
from peer_step import make_batch  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Form:
    micro_batch: int = 1
    attention: str = "sdpa"  # sdpa, sdpa_cudnn, flash_attention_2
    adapters: str = "autocast"  # autocast: float32 under torch.autocast, as Trainer(bf16=True) has it; bfloat16
    grouped: bool = False  # samples of like length together, over the whole epoch
    liger: bool = False
    compiled: bool = False

    def __str__(self):
        parts = [f"micro-batch {self.micro_batch}", self.attention, f"adapters {self.adapters}"]
        parts += [name for name, on in (("length-grouped", self.grouped), ("Liger", self.liger), ("torch.compile", self.compiled)) if on]
        return ", ".join(parts)

    def build(self):
        """What must be built anew when it changes."""
        return self.adapters, self.liger, self.compiled


def make_model(workload, directory, device):
    """Random weights on the device, saved once: both programs load the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(workload.config, indent=2))
    torch.manual_seed(42)
    config = AutoConfig.from_pretrained(directory)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(workload.config, indent=2))


def load_base(directory, device, attention="sdpa"):
    placement = {"device_map": {"": 0}} if device == "cuda" else {}
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation=attention, **placement)


def make_adapter(workload, model_directory, directory, device):
    """PEFT directory with a small random B: an adapter that is read differently shows in the loss."""
    torch.manual_seed(7)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=workload.rank, lora_alpha=workload.alpha, lora_dropout=0.0, target_modules=list(workload.targets)
    )
    model = get_peft_model(load_base(model_directory, device), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.01)
    model.save_pretrained(directory)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Peer:
    def __init__(self, workload, model_directory, adapter_directory, samples, device):
        self.workload, self.samples, self.device = workload, samples, device
        self.model_directory, self.adapter_directory = model_directory, adapter_directory
        self.model = self.parameters = self.initial = self.optimizer = self.built = None

    def release(self):
        self.model = self.parameters = self.initial = self.optimizer = self.built = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, form):
        if self.built == form.build():
            return
        self.release()
        base = load_base(self.model_directory, self.device)
        if form.liger:
            from liger_kernel.transformers import _apply_liger_kernel_to_instance

            _apply_liger_kernel_to_instance(model=base)
        plain = form.adapters == "bfloat16"
        self.model = PeftModel.from_pretrained(base, self.adapter_directory, is_trainable=True, autocast_adapter_dtype=not plain)
        if plain:
            for name, parameter in self.model.named_parameters():  # loading keeps the dtype of the file
                if ".lora_" in name:
                    parameter.data = parameter.data.bfloat16()
        self.model.train()
        if form.compiled:
            torch._dynamo.reset()
            self.model.compile()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.initial = [p.detach().clone() for p in self.parameters]
        self.built = form.build()

    def restart(self):
        """The adapter as it was loaded, and a new optimizer."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.initial):
                parameter.copy_(value)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.workload.learning_rate, weight_decay=0.0, fused=True)

    def micro_batches(self, samples, form):
        """(inputs of each micro-batch, label tokens) of one step, on the device before the clock starts."""
        batches, labels = [], 0
        layout = "packed" if form.attention == "flash_attention_2" and not self.workload.packed else "padded"
        for i in range(0, len(samples), form.micro_batch):
            chunk = samples[i : i + form.micro_batch]
            inputs, label_tokens, _ = make_batch(chunk, layout)
            if len({len(s["input_ids"]) for s in chunk}) == 1:
                inputs.pop("attention_mask", None)
            batches.append({name: value.to(self.device) for name, value in inputs.items()})
            labels += label_tokens
        return batches, torch.tensor(labels, device=self.device)

    def step(self, batches, label_tokens, form):
        total = 0.0
        for inputs in batches:
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=form.adapters == "autocast"):
                loss = self.model(**inputs, use_cache=False, num_items_in_batch=label_tokens).loss
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def steps(self, form):
        """The epoch's steps: longest first when grouped, so that a lack of memory shows at once; else as ours, the first batch last."""
        size = self.workload.global_batch
        order = self.samples[size:] + self.samples[:size]
        if form.grouped:
            order = sorted(order, key=lambda s: -len(s["input_ids"]))
        return [self.micro_batches(order[i : i + size], form) for i in range(0, len(order), size)]

    def attention(self, form):
        self.model.get_base_model().set_attn_implementation("sdpa" if form.attention == "sdpa_cudnn" else form.attention)
        if form.attention != "sdpa_cudnn":
            return contextlib.nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        return sdpa_kernel([SDPBackend.CUDNN_ATTENTION] + others, set_priority=True)

    def run(self, form):
        """Warm-up on the first global batch, then one timed epoch. loss: of the warm-up; last_loss: of the last step, if it must equal ours."""
        self.prepare(form)
        with self.attention(form):
            first = self.micro_batches(self.samples[: self.workload.global_batch], form)
            if self.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            steps = self.steps(form)
            self.restart()
            if form.compiled:
                for batches, labels in steps:
                    self.step(batches, labels, form)
                self.restart()
            loss = float(self.step(*first, form))
            synchronize(self.device)
            start = time.perf_counter()
            for batches, labels in steps:
                last = self.step(batches, labels, form)
            synchronize(self.device)
            seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_reserved() if self.device == "cuda" else None
        comparable = not form.grouped and form.adapters == "autocast"  # an update of bfloat16 adapters is rounded: another trajectory
        return {"seconds": seconds, "loss": loss, "last_loss": float(last) if comparable else None, "peak_bytes": peak, "form": str(form)}


def matrix_rate(device):
    """FLOP/s of torch.matmul in bfloat16, best of 6, on random values (zeros draw less power and run faster)."""
    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    best = float("inf")
    for i in range(8):
        synchronize(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        synchronize(device)
        best = min(best, time.perf_counter() - start) if i > 1 else best
    return 2 * n**3 / best


def bandwidth(device):
    """Bytes/s of a copy, read and written bytes both counted."""
    n = 1 << (32 if device == "cuda" else 24)
    source = torch.ones(n // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for i in range(8):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start) if i > 1 else best
    return 2 * n / best
