"""Train on your own vehicle's data: `PYTHONPATH=docs python examples/train_own_data.py ROOT OUT CAMERA...`.

ROOT is read by the class of docs/drives.py; docs/own_data.md says what it holds, and how to write a class for yours.
"""

import sys
from pathlib import Path

from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.training.train import train_student

QUICK = ("train.epochs=1", "data.steps_per_epoch=1", "data.batch_size=1", "data.workers=0")  # leave it out to learn


def main(root: str, out: str, *cameras: str) -> None:
    """Train a student on labels, and print how it scores."""
    data = ["data.source=drives:Drives", f"data.train_root={root}", f"data.val_root={root}"]
    experiment = load(Experiment, "tiny", [*data, f"data.cameras=[{','.join(cameras)}]", *QUICK])
    weights = train_student(experiment, Path(out))
    report = evaluate_weights(weights, root, "", source="drives:Drives", workers=0)
    print(f"{weights}: {100 * report.iou.miou:.1f} mIoU")


if __name__ == "__main__":
    main(*sys.argv[1:])
