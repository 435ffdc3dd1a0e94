"""Move each class's logits so that 0.5 is the threshold at which a network segments best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table

from bridgeta_core.deploy.teacher_weights import FORMAT as TEACHER_FORMAT
from bridgeta_core.deploy.teacher_weights import TeacherInfo, load_teacher, read_any_info
from bridgeta_core.deploy.weights import FORMAT as STUDENT_FORMAT
from bridgeta_core.deploy.weights import find_weights, load_student, write_weights
from bridgeta_core.evaluation.average_precision import BINS, compute_curves
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.geometry.classes import CLASS_NAMES, THRESHOLD
from bridgeta_core.utils.arrays import Ints
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output


@dataclass(frozen=True)
class Calibration:
    """The best threshold of each class before, None for one that is left as it is; and its IoU there and at 0.5, shares
    of 1, NaN without labels. `samples` is what they were found on.
    """

    thresholds: tuple[float | None, ...]
    best: tuple[float, ...]
    half: tuple[float, ...]
    samples: int

    def build_table(self) -> Table:
        """Build a table of the classes."""
        table = Table(title="IoU in %, before", caption=f"{self.samples} samples", box=box.SIMPLE)
        table.add_column("class")
        for heading in ("best", "best threshold, now 0.5", "at 0.5"):
            table.add_column(heading, justify="right")
        for name, best, threshold, half in zip(CLASS_NAMES, self.best, self.thresholds, self.half, strict=True):
            shown = "left as it is" if threshold is None else f"{threshold:.3f}"
            table.add_row(
                name, *(("-", shown, "-") if math.isnan(best) else (f"{100 * best:.1f}", shown, f"{100 * half:.1f}"))
            )
        return table


def calibrate_weights(
    weights: str | Path,
    root: str | Path,
    version: str,
    out: Path,
    *,
    scenes: str = "all",
    source: str = "nuscenes",
    device: str = "auto",
) -> Calibration:
    """Write a copy of a student's or teacher's weights whose probabilities reach 0.5 where its IoU is best.

    A focal loss makes networks unsure, above all of rare classes: the best threshold of a thin line is far below 0.5,
    often below the protocol's least of 0.35. The logit of that threshold is taken from the bias of the class in the
    last layer. No order of probabilities changes, nor anything that depends on order alone, such as average precision;
    nor does the cost. Take data that the network is not scored on.

    A class without labels on the data, or whose best IoU is that of predicting it everywhere, is left as it is. The
    description in the file says what was done. int8 graphs, which hold the old bias, are left out. Raises BridgeTAError
    as `evaluate_weights` does, and for an output that is the input.
    """
    path = find_weights(weights)
    check_output(out, inputs=[path])
    report = evaluate_weights(path, root, version, scenes, source=source, device=device)
    assert report.figures is not None
    result = find_thresholds(report.figures.histograms.sum(axis=0), report.samples)
    if not any(result.thresholds):
        what = "has no class whose threshold could be found"
        raise BridgeTAError(what, where=root, fix="Take data with labels of the classes", exit_code=2)
    is_teacher = isinstance(read_any_info(path), TeacherInfo)
    network, info = load_teacher(path) if is_teacher else load_student(path)
    bias = network.head.classify.bias
    assert bias is not None
    with torch.no_grad():
        bias -= torch.tensor([math.log(t / (1 - t)) if t else 0.0 for t in result.thresholds])
    before = dict(zip(CLASS_NAMES, result.thresholds, strict=True))
    validation = info.provenance.get("validation")
    validation = {**validation} if isinstance(validation, dict) else {}
    after = {name: THRESHOLD if before[name] else t for name, t in zip(info.classes, info.thresholds, strict=True)}
    provenance = {
        **{key: value for key, value in info.provenance.items() if key != "int8"},
        "validation": {**validation, "thresholds": after},
        "calibration": {"root": Path(root).name, "scenes": scenes, "samples": report.samples, "thresholds": before},
    }
    write_weights(out, TEACHER_FORMAT if is_teacher else STUDENT_FORMAT, network, replace(info, provenance=provenance))
    return result


def find_thresholds(counts: Ints, samples: int) -> Calibration:
    """Find the best threshold of each class, a multiple of 1 / BINS, from cells `[6, BINS, 2]` by probability and
    label.
    """
    iou = np.nan_to_num(compute_curves(counts)[2], nan=-1.0)
    thresholds: list[float | None] = []
    for curve in iou:
        edge = int(curve[1:].argmax()) + 1
        # The first edge is 0, which everything reaches.
        thresholds.append(edge / BINS if curve[edge] > max(curve[0], 0.0) else None)
    best, half = (np.where(iou[:, 0] < 0, np.nan, score) for score in (iou.max(axis=1), iou[:, BINS // 2]))
    return Calibration(tuple(thresholds), tuple(best.tolist()), tuple(half.tolist()), samples)
