"""Score the shipped weights on unseen synthetic towns, and write the figures that `make demo` prints.

    bridgeta synth data/test --split test --scenes 40 --seed 1 --duration 2 --keyframes-only --image-scale 0.25
    python bench/shipped.py data/test

Prints a Markdown table, and replaces bridgeta_core/deploy/pretrained/scores.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from machine import read_cpu_name

import bridgeta_core
from bridgeta_core.cli.commands import find_table_version
from bridgeta_core.deploy.scores import BASELINE, FILE, STUDENT
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.evaluation.metric import RANGE_LABELS
from bridgeta_core.evaluation.report import EvalReport
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.utils.outputs import replace_when_done


def format_row(name: str, report: EvalReport) -> str:
    iou = report.iou
    values = [*iou.best, iou.miou, iou.miou_half, *iou.miou_by_range]
    return f"| `{name}` | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a synthetic root of the split test")
    root = parser.parse_args().root
    sheet = json.loads((root / "synth.json").read_text())
    settings, version = sheet["settings"], find_table_version(root, None)
    reports = {name: evaluate_weights(name, root, version) for name in (STUDENT, BASELINE)}
    heads = [*CLASS_NAMES, "mean", "at 0.5", *RANGE_LABELS]
    print(f"{read_cpu_name()}, {datetime.date.today()}")
    print("| | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for name, report in reports.items():
        print(format_row(name, report))
    content = {
        "data": f"{len(sheet['locations'])} synthetic towns that it has not seen",
        "settings": settings,
        "evaluations": {name: {**report.to_mapping(), "root": "data/test"} for name, report in reports.items()},
    }
    with replace_when_done(Path(bridgeta_core.__file__).parent / "deploy" / "pretrained" / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
