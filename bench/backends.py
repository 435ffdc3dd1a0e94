"""A student by back end and precision, in time and IoU: `python bench/backends.py WEIGHTS ROOT [--repeats 40]`.

    bridgeta synth data/train --scenes 8 --seed 5 --duration 2 --keyframes-only --image-scale 0.25
    bridgeta synth data/test --split test --scenes 40 --seed 1 --duration 2 --keyframes-only --image-scale 0.25
    bridgeta quantise tiny data/train tiny_int8.safetensors
    python bench/backends.py tiny_int8.safetensors data/test

Prints a Markdown table: the stages in one paired run, as `bridgeta bench` measures them, and for every back end and
precision the mean IoU of ROOT and its distance to PyTorch's at float32. Without ROOT it prints the times alone.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bridgeta_core.cli.common import find_table_version
from bridgeta_core.deploy.bench import STAGES, Measurement, measure_weights
from bridgeta_core.evaluation.evaluate import evaluate_weights


def score(weights: str, root: Path, device: str, measurement: Measurement) -> list[float]:
    """Return the mean IoU of every row of a measurement."""
    tables = find_table_version(root, None)
    return [
        evaluate_weights(weights, root, tables, device=device, backend=row.backend, precision=row.precision).iou.miou
        for row in measurement.timings
    ]


def show(values: list[float]) -> str:
    return f"{min(values):.1f} / {statistics.median(values):.1f}"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default="tiny")
    parser.add_argument("root", type=Path, nargs="?", help="a root that neither training nor quantising has seen")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measurement = measure_weights(options.weights, options.device, options.repeats)
    scores = score(options.weights, options.root, options.device, measurement) if options.root else []
    heads = ["back end", "precision", *STAGES, "total", "faster by", "largest difference", "mIoU, %", "points"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    first = min(measurement.timings[0].totals)
    for i, row in enumerate(measurement.timings):
        cells = [row.backend, row.precision, *map(show, [*row.stages.values(), row.totals])]
        cells += [f"{first / min(row.totals):.2f} x", f"{row.difference:.1e}"]
        cells += [f"{100 * scores[i]:.2f}", f"{100 * (scores[i] - scores[0]):+.2f}"] if scores else ["", ""]
        print("| " + " | ".join(cells) + " |")
    print(
        f"\nmilliseconds, minimum / median of {options.repeats} rounds; {measurement.device}, {options.threads} threads"
    )
    print(f"decode and resize: {show(measurement.decoding)}")
    for name, reason in measurement.omitted.items():
        print(f"{name}: {reason}")
    installed = [name for name in ("torch", "openvino", "onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in installed)
    print(f"{versions}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
