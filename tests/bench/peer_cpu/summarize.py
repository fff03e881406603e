"""Reads the JSON files of run.sh: `fastest WORK DTYPE` names the peer's fastest variant, `table WORK TOKENS` prints the comparison.

table: exit status 1 if the losses of the two programs disagree, as the times then compare different work.
"""

import json
import pathlib
import statistics
import sys

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def read(work, pattern):
    return {path.name: json.loads(path.read_text()) for path in sorted(pathlib.Path(work).glob(pattern))}


def fastest(work, dtype):
    choices = read(work, f"peer.{dtype}.choice.*.json")
    name = min(choices, key=lambda n: min(choices[n]["step_seconds"]))
    variant, allocator = name.removeprefix(f"peer.{dtype}.choice.").removesuffix(".json").rsplit(".", 1)
    print(variant, allocator)


def column(results):
    """Median step, fastest step, median loss and largest peak over the rounds."""
    seconds = [s for r in results for s in r["step_seconds"]]
    loss = [r["loss"] for r in results]
    peaks = [r["peak_rss_bytes"] for r in results if r.get("peak_rss_bytes")]
    return {
        "median": statistics.median(seconds),
        "best": min(seconds),
        "loss": statistics.median(loss),
        "peak": max(peaks) if peaks else float("nan"),
    }


def table(work, tokens):
    failed = False
    print("dtype     program  median s  best s  tokens/s  peak RSS MiB  loss")
    for dtype in LOSS_TOLERANCE:
        sides = {p: list(read(work, f"{p}.{dtype}.round.*.json").values()) for p in ("ours", "peer")}
        if not all(sides.values()):
            continue
        ours, peer = column(sides["ours"]), column(sides["peer"])
        for name, c in (("adamem", ours), ("peer", peer)):
            print(
                f"{dtype:9} {name:8} {c['median']:8.3f} {c['best']:7.3f} {tokens / c['median']:9.1f} "
                f"{c['peak'] / 2**20:13.0f}  {c['loss']:.6f}"
            )
        pairs = [
            statistics.median(b["step_seconds"]) / statistics.median(a["step_seconds"]) for a, b in zip(sides["ours"], sides["peer"])
        ]
        variant = sides["peer"][0]["variant"]
        print(
            f"{dtype:9} speed of adamem / peer ({variant}): {peer['median'] / ours['median']:.2f} "
            f"(rounds: {' '.join(f'{p:.2f}' for p in pairs)}), memory {ours['peak'] / peer['peak']:.2f}"
        )
        difference = abs(ours["loss"] - peer["loss"])
        if not difference <= LOSS_TOLERANCE[dtype]:
            print(f"{dtype:9} FAIL: losses differ by {difference:.3g}, allowed {LOSS_TOLERANCE[dtype]}: the times do not compare")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "fastest":
        fastest(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[1] == "table":
        sys.exit(table(sys.argv[2], int(sys.argv[3])))
    else:
        sys.exit(__doc__)
