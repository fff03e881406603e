"""Writes the checkpoint files of this directory with h5py, from the description in io/checkpoint.h alone: one good file and
one for each way in which a file can be wrong although HDF5 finds nothing to complain about."""
import hashlib
import os
import struct
import sys

import h5py
import numpy as np

META = {
    "format_version": 1, "step": 40, "updates": 39, "epoch": 1.25, "cursor": 17, "seed": 42, "world_size": 2, "threads": 4,
    "backend": "cpu", "best_metric": 0.5, "best_step": 30, "patience": 1, "consecutive_skips": 0, "config": "run = { };\n",
    "loss_sum": 2.5, "loss_count": 3, "program_version": "0.1.0", "base_fingerprint": "ab" * 32,
}
NAMES = {"layers.0.lora_A.weight": (2, 3), "norm.weight": (3,)}


def tensors():
    out = {}
    for g, group in enumerate(("optimizer/exp_avg", "optimizer/exp_avg_sq", "parameters")):
        for n, (name, shape) in enumerate(NAMES.items()):
            out[f"/{group}/{name}"] = (np.arange(np.prod(shape), dtype="<f4") + 10 * g + 100 * n).reshape(shape)
    return out


def digest_of(arrays):
    digest = hashlib.sha256()
    for path in sorted(arrays, key=str.encode):
        a = arrays[path].astype("<f4")
        digest.update(path.encode() + b"\0F32\0" + struct.pack(f"<{1 + a.ndim}Q", a.ndim, *a.shape) + a.tobytes())
    return digest.hexdigest()


def meta_digest_of(meta):
    digest = hashlib.sha256()
    for name in sorted(meta):
        value = meta[name]
        packed = value.encode() + b"\0" if isinstance(value, str) else struct.pack("<q" if isinstance(value, int) else "<d", value)
        digest.update(name.encode() + b"\0" + packed)
    return digest.hexdigest()


def write(directory, name, meta=None, dataset=None, change=None, libver=("v110", "v110"), string=None):
    """dataset: keyword arguments by path that replace the usual ones; change(file, arrays) edits the finished file."""
    arrays = tensors()
    attributes = {**META, "digest": digest_of(arrays), **(meta or {})}
    attributes["meta_digest"] = meta_digest_of(attributes)
    string = string or (lambda text: h5py.string_dtype("utf-8", len(text.encode()) + 1))
    with h5py.File(os.path.join(directory, name), "w", libver=libver) as file:
        group = file.create_group("meta")
        for key, value in attributes.items():
            if isinstance(value, str):
                group.attrs.create(key, value, dtype=string(value))
            else:
                group.attrs[key] = value
        for path, array in arrays.items():
            options = {"dtype": "<f4", "chunks": array.shape, "fletcher32": True, **(dataset or {}).get(path, {})}
            file.create_dataset(path, data=array.reshape(options.pop("shape", array.shape)), **options)
        if change:
            change(file, arrays)


A, NORM = "/parameters/layers.0.lora_A.weight", "/parameters/norm.weight"


def replace_by_link(file, link):
    del file[NORM]
    file[NORM] = link


def main(directory):
    write(directory, "good.h5")
    write(directory, "version-2.h5", meta={"format_version": 2})
    write(directory, "float64.h5", dataset={A: {"dtype": "<f8"}})
    write(directory, "big-endian.h5", dataset={A: {"dtype": ">f4"}})
    write(directory, "shape.h5", dataset={A: {"shape": (3, 2), "chunks": (3, 2)}})
    write(directory, "three-dimensions.h5", dataset={A: {"shape": (1, 2, 3), "chunks": (1, 2, 3)}})
    write(directory, "no-checksum.h5", dataset={A: {"fletcher32": False}})
    write(directory, "deflate.h5", dataset={A: {"compression": "gzip"}})
    write(directory, "contiguous.h5", dataset={A: {"fletcher32": False, "chunks": None}})
    write(directory, "missing-moment.h5", change=lambda file, arrays: file.__delitem__("/optimizer/exp_avg_sq/norm.weight"))
    write(directory, "missing-parameter.h5", change=lambda file, arrays: file.__delitem__(NORM))
    write(directory, "missing-group.h5", change=lambda file, arrays: file.__delitem__("/optimizer"))
    write(directory, "missing-meta.h5", change=lambda file, arrays: file.__delitem__("/meta"))
    write(directory, "missing-attribute.h5", change=lambda file, arrays: file["meta"].attrs.__delitem__("cursor"))
    write(directory, "soft-link.h5", change=lambda file, arrays: replace_by_link(file, h5py.SoftLink(A)))
    write(directory, "external-link.h5", change=lambda file, arrays: replace_by_link(file, h5py.ExternalLink("good.h5", NORM)))
    write(directory, "changed-value.h5", change=lambda file, arrays: file[A].__setitem__((1, 2), 7.0))
    write(directory, "changed-step.h5", change=lambda file, arrays: file["meta"].attrs.modify("step", 41))
    write(directory, "step-is-real.h5", change=lambda file, arrays: file["meta"].attrs.create("step", 40.0))
    write(directory, "step-is-list.h5", change=lambda file, arrays: file["meta"].attrs.create("step", [40, 40]))
    write(directory, "long-backend.h5", meta={"backend": "a backend of many letters"})
    write(directory, "variable-string.h5", string=lambda text: h5py.string_dtype("utf-8"))
    write(directory, "group-as-tensor.h5", change=lambda file, arrays: file.create_group("/parameters/extra"))
    write(directory, "never-written.h5", change=lambda file, arrays: file.create_dataset(
        "/parameters/huge", shape=(1 << 40, 4), dtype="<f4", chunks=(1024, 4), fletcher32=True))
    write(directory, "old-superblock.h5", libver=("earliest", "v110"))


main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
