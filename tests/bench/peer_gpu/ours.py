"""Our side: `adamem bench` on the same model, adapter and samples."""

import json
import subprocess
import threading
import time

import torch
from workload import real_tokens

CONFIG = """run = {{ output_dir = "{work}/run"; seed = 42; backend = "{backend}"; }};
model = {{ path = "{model}"; dtype = "bfloat16"; }};
lora = {{ r = {rank}; lora_alpha = {alpha}.0; lora_dropout = 0.0; target_modules = {targets}; init_from = "{adapter}"; }};
data = {{ train = ( {{ path = "{input}"; format = "tokens"; }} ); shuffle = false; max_length = {max_length}; cache_dir = "{work}/cache"; }};
training = {{ max_steps = 1000; per_device_train_batch_size = {micro_batch}; global_batch_size = {global_batch}; learning_rate = {learning_rate};
  lr_scheduler_type = "constant"; weight_decay = 0.0; max_grad_norm = 1.0; gradient_checkpointing = "{gradient_checkpointing}"; }};
"""


class DeviceMemory:
    """Peak of the memory in use on the GPU beyond what was in use before; looked at 20 times a second."""

    def __enter__(self):
        self.peak, self.stop = None, threading.Event()
        if torch.cuda.is_available():
            self.before = self.used()
            self.thread = threading.Thread(target=self.watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        if torch.cuda.is_available():
            self.thread.join()

    def used(self):
        free, total = torch.cuda.mem_get_info()
        return total - free

    def watch(self):
        while not self.stop.is_set():
            self.peak = max(self.peak or 0, self.used() - self.before)
            time.sleep(0.05)


class Ours:
    def __init__(self, program, workload, model, adapter, samples, device, work):
        self.program, self.workload, self.samples, self.device, self.work = program, workload, samples, device, work
        self.model, self.adapter = model, adapter
        (work / "tokens.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))

    def run(self, micro_batch, timeout):
        """One epoch behind a warm-up on the first global batch. loss: of the warm-up; last_loss: of the last step, on the same batch."""
        workload, config = self.workload, self.work / f"bench.{micro_batch}.cfg"
        config.write_text(
            CONFIG.format(
                work=self.work, backend=self.device, model=self.model, adapter=self.adapter, rank=workload.rank, alpha=workload.alpha,
                targets=json.dumps(list(workload.targets)).replace("[", "[ "), input=self.work / "tokens.jsonl",
                max_length=workload.max_length, micro_batch=micro_batch, global_batch=workload.global_batch,
                learning_rate=workload.learning_rate,
                gradient_checkpointing=workload.gradient_checkpointing,
            )
        )  # fmt: skip
        with DeviceMemory() as memory:
            done = subprocess.run(
                [self.program, "bench", "--config", config, "--steps", str(workload.steps)],
                capture_output=True, text=True, timeout=timeout,
            )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"adamem bench ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        report = json.loads(done.stdout)
        # The warm-up step takes the first batch, the timed ones the others and, in the next epoch, the first again.
        expected = real_tokens(self.samples) + real_tokens(self.samples[: workload.global_batch])
        if abs(report["tokens_per_step"] * (workload.steps + 1) - expected) > 0.5:
            raise RuntimeError(f"adamem trained {report['tokens_per_step'] * (workload.steps + 1):.0f} tokens, not {expected}")
        return {
            "seconds": sum(report["step_seconds"]),
            "loss": report["loss"],
            "last_loss": report["last_loss"],
            "peak_bytes": memory.peak,
            "form": f"micro-batch {micro_batch}, recompute {report['recompute']}",
            "report": report,
        }
