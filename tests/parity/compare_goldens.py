"""Makes every golden again in a temporary folder and compares it with the committed one: python compare_goldens.py [CASE ...]

Float64 tensors and JSON numbers of results agree within 1e-12 relative (norm-wise), float32 results within 1e-7; inputs (weights,
adapters, token ids) must be equal. Exit status 1 tells of a difference. Other package versions than the recorded ones are named, and compared all the same.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile

from safetensors.torch import load_file

import make_goldens
import reference as ref

RELATIVE = {"torch.float64": 1e-12, "torch.float32": 1e-7}
# How far float32 is from the reference depends on the processor's instructions, so only its order of magnitude is compared.
LOOSE = ("float32_transformers_error", "smallest_gap")


def compare_tensors(committed, made):
    is_result = committed.name.startswith("expected")
    old, new = load_file(committed), load_file(made)
    if old.keys() != new.keys():
        yield f"tensor names differ: {sorted(old.keys() ^ new.keys())}"
        return
    for name, tensor in old.items():
        if tensor.dtype != new[name].dtype or tensor.shape != new[name].shape:
            yield f"{name}: dtype or shape differs"
        elif not is_result:
            if not tensor.equal(new[name]):
                yield f"{name}: an input differs"
        elif not (error := ref.relative(new[name].double(), tensor.double())) <= RELATIVE[str(tensor.dtype)]:
            yield f"{name}: relative difference {error:.3g}"


def compare_values(old, new, path=""):
    """Differences of two JSON values; the key `versions` is left to report_versions."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key == "versions":
                continue
            if key not in old or key not in new:
                yield f"{path}.{key}: only in one of the two"
            else:
                yield from compare_values(old[key], new[key], f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from compare_values(a, b, f"{path}[{i}]")
    elif isinstance(old, float) and isinstance(new, float):
        if any(key in path for key in LOOSE):
            if not new <= 100 * old:
                yield f"{path}: {old!r} became {new!r}"
        elif not math.isclose(old, new, rel_tol=1e-10, abs_tol=1e-13):
            yield f"{path}: {old!r} became {new!r}"
    elif old != new:
        yield f"{path}: {old!r} became {new!r}"


def compare_file(committed, made):
    if committed.suffix == ".safetensors":
        yield from compare_tensors(committed, made)
    elif committed.suffix == ".jsonl":
        yield from compare_values(*([json.loads(l) for l in p.read_text().splitlines()] for p in (committed, made)))
    elif committed.suffix == ".json":
        # The two files that packages write name their own versions.
        values = [json.loads(p.read_text()) for p in (committed, made)]
        for value in values:
            for key in ("peft_version", "transformers_version"):
                value.pop(key, None)
        yield from compare_values(*values)
    elif committed.read_bytes() != made.read_bytes():
        yield "bytes differ"


def report_versions(case):
    recorded, installed = json.loads((make_goldens.DATA / case / "meta.json").read_text())["versions"], make_goldens.versions()
    for name in recorded:
        if recorded[name] != installed.get(name):
            print(f"note: {case} was made with {name} {recorded[name]}, here is {installed.get(name)}")


def compare_case(case, output):
    committed, made = make_goldens.DATA / case, output / case
    made_only_once = {"train20/walden.txt"}
    old = {p.relative_to(committed) for p in committed.rglob("*") if p.is_file()}
    new = {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
    for path in sorted(old ^ new):
        if f"{case}/{path}" not in made_only_once:
            yield f"{case}/{path}: only in one of the two"
    for path in sorted(old & new):
        for line in compare_file(committed / path, made / path):
            yield f"{case}/{path}: {line}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[[], *make_goldens.CASES])
    names = parser.parse_args().cases or list(make_goldens.CASES)
    needed = [n for n in make_goldens.CASES if n in names or (n == "tied_h64" and {"train20", "loss_terms"} & set(names))]
    with tempfile.TemporaryDirectory() as temporary:
        output = pathlib.Path(temporary)
        make_goldens.make(output, needed)
        failed = False
        for case in names:
            report_versions(case)
            for line in compare_case(case, output):
                print(f"DIFFERENT {line}")
                failed = True
    print("goldens differ" if failed else f"goldens agree: {' '.join(names)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
