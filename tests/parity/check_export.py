"""Checks an export of `adamem` with the libraries that its users serve it with.

    adamem evaluate --model BASE --adapter PEFT_DIR --input BATCH --logits LOGITS
    python check_export.py --base BASE --peft PEFT_DIR --merged MERGED_DIR --input BATCH --logits LOGITS

PEFT_DIR must load with PeftModel.from_pretrained on BASE, MERGED_DIR with AutoModelForCausalLM, and both must give, in float32, the logits
of the program (tensors logits.N [T,V], one per line of BATCH) within 1e-5 absolute. Either of the two directories may be left out, and
--logits may be a golden (expected.safetensors). Exit status 1 and a line per fault otherwise.
"""

import argparse
import json
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import reference as ref

TOLERANCE = 1e-5


def load_peft(base, directory):
    """The adapted model. PEFT only warns of missing or unknown tensors, so the file's names are compared with the model's here."""
    model = PeftModel.from_pretrained(ref.load_base(base), directory).eval()
    with safe_open(pathlib.Path(directory) / "adapter_model.safetensors", "pt") as file:
        given = set(file.keys())
    wanted = {n for n in map(ref.peft_name, dict(model.named_parameters())) if ".lora_" in n}
    if given != wanted:
        raise ValueError(f"adapter tensors missing or unknown: {sorted(given ^ wanted)[:6]}")
    return model


def load_merged(directory):
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            raise ValueError(f"{kind} in the merged directory: {sorted(report[kind])[:6]}")
    return model.eval()


@torch.no_grad()
def compare(model, samples, logits_file):
    """Largest absolute difference over all lines."""
    largest = 0.0
    with safe_open(logits_file, "pt") as file:
        names = {n for n in file.keys() if n.startswith("logits.")}
        if names != {f"logits.{i}" for i in range(len(samples))}:
            raise ValueError(f"{logits_file}: {len(names)} logits tensors for {len(samples)} input lines")
        for i, sample in enumerate(samples):
            logits = file.get_tensor(f"logits.{i}").double()
            wanted = ref.sequence_logits(model, sample).double()
            if logits.shape != wanted.shape:
                raise ValueError(f"logits.{i}: shape {tuple(logits.shape)}, Transformers {tuple(wanted.shape)}")
            difference = (logits - wanted).abs().max().item()
            if difference > largest or difference != difference:  # a NaN stays
                largest = difference
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="base model directory")
    parser.add_argument("--peft", help="exported PEFT directory")
    parser.add_argument("--merged", help="exported merged directory")
    parser.add_argument("--input", required=True, help="JSON lines with input_ids")
    parser.add_argument("--logits", required=True, help="safetensors with logits.N")
    arguments = parser.parse_args()
    if not arguments.peft and not arguments.merged:
        parser.error("give --peft or --merged or both")
    samples = ref.read_samples(arguments.input)
    failed, report = False, {}
    for kind, load in (
        ("peft", lambda: load_peft(arguments.base, arguments.peft)),
        ("merged", lambda: load_merged(arguments.merged)),
    ):
        if getattr(arguments, kind) is None:
            continue
        try:
            report[kind] = compare(load(), samples, arguments.logits)
        except Exception as error:  # whatever the libraries raise is the finding
            print(f"FAIL {kind}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = True
            continue
        if not report[kind] <= TOLERANCE:
            print(f"FAIL {kind}: logits differ by {report[kind]:.3g}, allowed {TOLERANCE}", file=sys.stderr)
            failed = True
    print(json.dumps({"tolerance": TOLERANCE, "logits_max_abs_difference": report, "passed": not failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
