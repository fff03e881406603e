"""Medians, ratios and floors of the rounds; prints the table and writes it as Markdown and JSON."""

import datetime
import json
import re
import statistics

from workload import model_flops, real_tokens, weights

LOSS_TOLERANCE = 1e-2
DROP_TOLERANCE = 0.1  # of the loss's own drop in the epoch, which needs the gradients to be right; noise of bfloat16 is far below
NOMINAL_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16


def disagreement(ours, result):
    """Why a result is of other work than ours; empty if it is of the same."""
    difference = abs(result["loss"] - ours["loss"])
    if not difference <= LOSS_TOLERANCE:
        return f"first loss {result['loss']:.6f} differs from ours by {difference:.3g}"
    if result["last_loss"] is None:
        return ""
    difference = abs(result["last_loss"] - ours["last_loss"])
    if not difference <= LOSS_TOLERANCE + DROP_TOLERANCE * abs(ours["loss"] - ours["last_loss"]):
        return f"loss after training {result['last_loss']:.6f} differs from ours by {difference:.3g}"
    return ""


def row(name, results, workload, samples, machine):
    seconds = statistics.median(r["seconds"] for r in results)
    flops = model_flops(workload.config, samples)
    peaks = [r["peak_bytes"] for r in results if r["peak_bytes"] is not None]
    nominal = next((peak for gpu, peak in NOMINAL_PEAK.items() if gpu in machine["device"]), None)
    return {
        "name": name,
        "form": results[0]["form"],
        "epoch_seconds": [r["seconds"] for r in results],
        "tokens_per_second": real_tokens(samples) / seconds,
        "samples_per_second": len(samples) / seconds,
        "mfu_measured_rate": flops / seconds / machine["matrix_rate"],
        "mfu_nominal_peak": flops / seconds / nominal if nominal else None,
        "peak_bytes": max(peaks) if peaks else None,
        "losses": [r["loss"] for r in results],
        "last_losses": [r["last_loss"] for r in results],
    }


def floors(workload, samples, machine, micro_batch):
    """Least seconds of an epoch: FLOPs over the matrix rate; the weights read once forward and once backward over the bandwidth."""
    body, head = weights(workload.config)
    micro_batches = workload.steps * -(-workload.global_batch // micro_batch)
    return {
        "flops_seconds": model_flops(workload.config, samples) / machine["matrix_rate"],
        "bytes_seconds": 2 * 2 * (body + head) * micro_batches / machine["bandwidth"],
    }


def ratios(rows):
    """Speed of ours over each peer row: of the medians, and round by round."""
    ours = next(r for r in rows if r["name"] == "ours")
    return {
        r["name"]: {
            "speed": statistics.median(r["epoch_seconds"]) / statistics.median(ours["epoch_seconds"]),
            "rounds": [b / a for a, b in zip(ours["epoch_seconds"], r["epoch_seconds"])],
            "memory": ours["peak_bytes"] / r["peak_bytes"] if ours["peak_bytes"] and r["peak_bytes"] else None,
        }
        for r in rows
        if r["name"] != "ours"
    }


def disagreements(measured):
    found = {name: [disagreement(ours, r) for ours, r in zip(measured["ours"], results)] for name, results in measured.items()}
    return {name: max(reasons) for name, reasons in found.items() if any(reasons)}


def percent(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def gigabytes(value):
    return "-" if value is None else f"{value / 1e9:.1f}"


def markdown(result):
    machine, lines = result["machine"], []
    lines += [f"# Workload {result['workload']}: {result['title']}", ""]
    if machine["tiny"]:
        lines += ["**Tiny shapes: this tries the script, the figures mean nothing.**", ""]
    lines += [
        f"- {machine['device']}, driver {machine['driver']}, {result['date']}, commit {machine['commit']}, program sha256 {machine['program']}",
        "- " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        f"- matrix rate: ours {machine['our_matrix_rate'] / 1e12:.4g}, torch {machine['torch_matrix_rate'] / 1e12:.4g} TFLOP/s; "
        f"bandwidth {machine['bandwidth'] / 1e12:.3g} TB/s",
        f"- an epoch: {result['samples']} samples, {result['tokens']} tokens, {result['steps']} optimizer steps; medians of {result['rounds']} rounds",
        f"- floors of an epoch: {result['floors']['flops_seconds']:.3g} s (FLOPs), {result['floors']['bytes_seconds']:.3g} s (weight bytes)",
        "",
        "| row | form | tokens/s | samples/s | MFU (measured rate) | MFU (nominal) | peak GB | loss: first, last |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        lines.append(
            f"| {r['name']} | {r['form']} | {r['tokens_per_second']:.0f} | {r['samples_per_second']:.2f} | "
            f"{percent(r['mfu_measured_rate'])} | {percent(r['mfu_nominal_peak'])} | {gigabytes(r['peak_bytes'])} | "
            f"{r['losses'][0]:.5f}, {'-' if r['last_losses'][0] is None else format(r['last_losses'][0], '.5f')} |"
        )
    lines.append("")
    if result["void"]:
        lines += ["**VOID: the losses disagree.** " + "; ".join(f"{name}: {why}" for name, why in result["void"].items()), ""]
    else:
        for name, ratio in result["ratios"].items():
            each = " ".join(f"{x:.2f}" for x in ratio["rounds"])
            memory = f", memory {ratio['memory']:.2f}" if ratio["memory"] else ""
            lines.append(f"- speed of ours over {name}: **{ratio['speed']:.2f}** (rounds: {each}){memory}")
        lines += [f"- the row that counts: {result['best_peer']}", ""]
    lines += ["Tried for ours: " + "; ".join(result["tried"]["ours"]), "", "Tried for the peer:", ""]
    for tried in result["tried"]["peer"]:
        outcome = tried["skipped"] if "skipped" in tried else f"{tried['seconds']:.3f} s, loss {tried['loss']:.5f}"
        lines.append(f"- {tried['form']}: {outcome}")
    return "\n".join(lines) + "\n"


def write_report(output, workload, samples, measured, machine, tried):
    machine["matrix_rate"] = max(machine["our_matrix_rate"], machine["torch_matrix_rate"])
    rows = [row(name, results, workload, samples, machine) for name, results in measured.items()]
    void, now = disagreements(measured), datetime.datetime.now(datetime.timezone.utc)
    micro_batch = int(re.search(r"micro-batch (\d+)", rows[0]["form"]).group(1))
    result = {
        "workload": workload.name,
        "title": workload.title,
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine,
        "samples": len(samples),
        "tokens": real_tokens(samples),
        "steps": workload.steps,
        "rounds": len(rows[0]["epoch_seconds"]),
        "floors": floors(workload, samples, machine, micro_batch),
        "rows": rows,
        "void": void,
        "ratios": {} if void else ratios(rows),
        "best_peer": max((r for r in rows if r["name"] != "ours"), key=lambda r: r["tokens_per_second"])["name"],
        "tried": tried,
    }
    text = markdown(result)
    gpu = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    name = f"{now:%Y-%m-%d}-{gpu}-workload-{workload.name.lower()}" + ("-tiny" if machine["tiny"] else "")
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.md").write_text(text)
    (output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    return 1 if void else 0
