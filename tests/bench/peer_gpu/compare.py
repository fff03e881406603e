"""Compares our LoRA step with Transformers + PEFT on one device, in turn, and writes the results. Started by run.sh, which says what the options mean.

First the peer's best form is sought, one choice after the other; then rounds of (ours, peer as users run it, peer tuned) run until the time is up.
Exit status: 1 if the losses disagree, no round fitted into the time, or our program failed.
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings

import torch
import transformers
import workload as workloads
from ours import Ours
from peer import Form, Peer, bandwidth, make_adapter, make_model, matrix_rate
from report import disagreement, write_report

TUNING_SHARE = 0.6  # of the time; the rest is for rounds
ATTEMPT_SHARE = 0.7  # an attempt that still runs then is given up (compilation can take long)


def say(text):
    print(text, file=sys.stderr, flush=True)


def give_up(*_):
    raise TimeoutError("given up, as it took too long")


class Clock:
    def __init__(self, minutes):
        self.start, self.total = time.monotonic(), minutes * 60

    def spent(self):
        return time.monotonic() - self.start

    def left(self):
        return self.total - self.spent()


def installed(module):
    return importlib.util.find_spec(module) is not None


class Tuner:
    """Seeks the peer's fastest form one choice after the other; remembers what was tried, and why something was not."""

    def __init__(self, peer, ours, clock):
        self.peer, self.ours, self.clock, self.limit = peer, ours, clock, TUNING_SHARE * clock.total
        self.best, self.best_seconds, self.tried, self.longest, self.seen = None, float("inf"), [], 0.0, set()

    def note(self, form, **what):
        self.tried.append({"form": str(form)} | what)
        say(f"  {form}: " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in what.items()))

    def attempt(self, form):
        """Runs a form; false where it lacked memory or could not run."""
        if form in self.seen:
            return True
        self.seen.add(form)
        if self.best and self.clock.spent() + self.longest > self.limit:
            self.note(form, skipped="not tried: out of time")
            return True
        start = time.monotonic()
        signal.alarm(max(10, int(ATTEMPT_SHARE * self.clock.total - self.clock.spent())))
        try:
            result = self.peer.run(form)
        except Exception as error:  # a form that fails is left out, and the results say so
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            failed = "out of memory" if out_of_memory else f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            failed = None
        finally:
            signal.alarm(0)
        self.longest = max(self.longest, time.monotonic() - start)
        if failed:
            self.peer.release()
            self.note(form, skipped=failed)
            return False
        difference = disagreement(self.ours, result)
        if difference:
            self.note(form, skipped=f"other work: {difference}")
            return True
        self.note(form, seconds=result["seconds"], loss=result["loss"])
        if result["seconds"] < self.best_seconds:
            self.best, self.best_seconds = form, result["seconds"]
        return True

    def change(self, **what):
        return dataclasses.replace(self.best, **what)

    def search(self, workload, users, device):
        for form in users:
            self.attempt(form)
        if self.best is None:
            return
        grouped = not workload.packed
        self.attempt(self.change(adapters="bfloat16", grouped=grouped))
        done = {form.micro_batch for form in users} if not grouped else set()
        for micro_batch in sorted(set(workload.peer_micro_batches) - done, key=lambda n: (n > 4, n)):
            if not self.attempt(self.change(micro_batch=micro_batch, grouped=grouped)) and micro_batch > 1:
                break
        if device == "cuda":
            self.attempt(self.change(attention="sdpa_cudnn"))
        if installed("flash_attn"):
            self.attempt(self.change(attention="flash_attention_2"))
        else:
            self.note("flash_attention_2", skipped="not installed")
        if installed("liger_kernel"):
            self.attempt(self.change(liger=True))
            larger = self.best.micro_batch * 2
            if self.best.liger and larger in workload.peer_micro_batches:
                self.attempt(self.change(micro_batch=larger))
        else:
            self.note("Liger", skipped="not installed")
        self.attempt(self.change(compiled=True))


def our_best(ours, workload, clock):
    """[(seconds, micro-batch, result)], fastest first, and the reasons of those that did not run."""
    tried, failed = [], []
    for micro_batch in workload.our_micro_batches:
        try:
            result = ours.run(micro_batch, max(clock.left(), 30))
        except RuntimeError as error:
            failed.append(f"micro-batch {micro_batch}: {error}")
            say("  " + failed[-1])
            continue
        say(f"  {result['form']}: seconds {result['seconds']:.4g}, loss {result['loss']:.6f}, last loss {result['last_loss']:.6f}")
        tried.append((result["seconds"], micro_batch, result))
    if not tried:
        raise RuntimeError("our program did not run")
    return sorted(tried, key=lambda t: t[0]), failed


def users_forms(workload):
    batches = sorted({1, workload.recipe_micro_batch} | ({2} if workload.packed else set()))
    return [Form(micro_batch=n) for n in batches]


def rounds(ours, peer, micro_batch, forms, clock, wanted):
    """{row: [results]} of whole rounds only."""
    rows, longest = {name: [] for name in ["ours", *forms]}, 0.0
    for number in range(wanted):
        if number and longest > clock.left():
            break
        start = time.monotonic()
        peer.release()
        one = {"ours": ours.run(micro_batch, max(clock.left(), 30))}
        for name, form in forms.items():
            one[name] = peer.run(form)
        for name, result in one.items():
            rows[name].append(result)
        longest = max(longest, time.monotonic() - start)
        say(f"round {number + 1}: " + ", ".join(f"{name} {result['seconds']:.3f} s" for name, result in one.items()))
    return rows


def prepare(workload, arguments, work):
    """(model, adapter, samples); a finished folder of an earlier run is used again."""
    model, adapter = work / "model", work / "adapter"
    if not (adapter / "adapter_config.json").exists():
        say("making random weights and an adapter")
        make_model(workload, model, arguments.device)
        make_adapter(workload, model, adapter, arguments.device)
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    return model, adapter, workloads.samples(workload)


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def compare(arguments):
    clock = Clock(arguments.minutes)
    workload = workloads.get(arguments.workload, arguments.tiny)
    work = pathlib.Path(arguments.work).resolve() / (workload.name + ("-tiny" if arguments.tiny else ""))
    work.mkdir(parents=True, exist_ok=True)
    model, adapter, samples = prepare(workload, arguments, work)
    ours = Ours(arguments.adamem, workload, model, adapter, samples, arguments.device, work)
    peer = Peer(workload, model, adapter, samples, arguments.device)
    machine = {"torch_matrix_rate": matrix_rate(arguments.device), "bandwidth": bandwidth(arguments.device)}
    peer.release()
    say(f"ours: choosing the micro-batch ({clock.spent():.0f} s spent)")
    our_tried, our_failed = our_best(ours, workload, clock)
    say(f"peer: choosing its fastest form ({clock.spent():.0f} s spent)")
    tuner = Tuner(peer, our_tried[0][2], clock)
    users = users_forms(workload)
    tuner.search(workload, users, arguments.device)
    forms = {f"peer as users run it, {form.micro_batch}": form for form in users}
    failed = {t["form"]: t["skipped"] for t in tuner.tried if "skipped" in t}
    forms = {name: form for name, form in forms.items() if str(form) not in failed}
    void = [f"{form}: {failed[str(form)]}" for form in users if str(form) in failed]
    if tuner.best is None or any("other work" in reason for reason in void):
        say("FAIL: void, the peer does not compute what ours does: " + "; ".join(void))
        return 1
    forms["peer tuned"] = tuner.best
    say(f"peer tuned: {tuner.best} ({clock.spent():.0f} s spent)")
    rows = rounds(ours, peer, our_tried[0][1], forms, clock, arguments.rounds)
    machine["our_matrix_rate"] = max(r["report"]["matrix_rate"] for r in rows["ours"])
    cuda = arguments.device == "cuda"
    return write_report(
        pathlib.Path(arguments.output),
        workload,
        samples,
        rows,
        {
            "device": torch.cuda.get_device_name() if cuda else "CPU",
            "driver": driver() if cuda else "none",
            "commit": arguments.commit,
            "program": arguments.sha256,
            "tiny": arguments.tiny,
            "versions": {m: __import__(m).__version__ for m in ("torch", "transformers", "peft")} | {"cuda": torch.version.cuda},
        }
        | machine,
        {"ours": [r["form"] + f": {r['seconds']:.3f} s" for _, _, r in our_tried] + our_failed, "peer": tuner.tried},
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("adamem", "output", "work", "commit", "sha256"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--workload", choices=["A", "B"], required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGALRM, give_up)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    try:
        return compare(arguments)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        say(f"FAIL: {error}")
        return 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a normal exit would wait for compilations that were given up
