"""The samples on which a network agrees least with the map: kept while an evaluation runs, and drawn after it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.geometry.images import Image
from bridgeta_core.utils.arrays import Bytes, Flags
from bridgeta_core.view.bev import find_errors, paint_bev, paint_errors
from bridgeta_core.view.sample import GAP, add_caption, arrange, place_in_row, read_scenery

MOST = 6
_CAMERA, _SIDE = 200, 300  # pixels


@dataclass(frozen=True, eq=False)
class WorstSample:
    """A sample by its position in the dataset: its mean IoU, its labels, and the prediction in per cent `[6, Y, X]`."""

    position: int
    miou: float
    labels: Bytes
    percent: Bytes
    known: Flags


class WorstSamples:
    """Keeps the `most` samples with the lowest mean IoU over the classes that are in their labels.

    Classes count from `thresholds` on. A sample whose labels are empty has no IoU.
    """

    def __init__(self, thresholds: Sequence[float], most: int = MOST) -> None:
        self.thresholds = tuple(thresholds)
        self._most, self._order = most, itertools.count()
        self._heap: list[tuple[float, int, WorstSample]] = []

    def add(self, position: int, probabilities: NDArray[np.floating], labels: Bytes, known: Flags) -> None:
        """Add a sample: probabilities and labels `[6, Y, X]`, and known `[6]`."""
        there = labels > 0
        predicted = probabilities >= np.array(self.thresholds, dtype=np.float32)[:, None, None]
        union = (there | predicted).sum(axis=(1, 2))
        scored = known & there.any(axis=(1, 2))
        if not scored.any():
            return
        miou = float(((there & predicted).sum(axis=(1, 2))[scored] / union[scored]).mean())
        # The heap's first is the best of those kept, and leaves when a worse one comes.
        if len(self._heap) == self._most and miou >= -self._heap[0][0]:
            return
        percent = np.rint(100 * probabilities).astype(np.uint8)
        entry = (-miou, -next(self._order), WorstSample(position, miou, labels.astype(np.uint8), percent, known.copy()))
        if len(self._heap) == self._most:
            heapq.heapreplace(self._heap, entry)
        else:
            heapq.heappush(self._heap, entry)

    @property
    def samples(self) -> list[WorstSample]:
        """The samples, the worst first."""
        return [entry[2] for entry in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]

    def draw(self, dataset: FrameDataset) -> Image:
        """Draw a row per sample, of which there must be one: cameras, prediction, ground truth, and what is wrong."""
        rows = [self._draw_row(sample, dataset) for sample in self.samples]
        width = max(row.shape[1] for row in rows)
        return np.concatenate([place_in_row([row], width + 2 * GAP) for row in rows])

    def _draw_row(self, worst: WorstSample, dataset: FrameDataset) -> Image:
        sample, grid = dataset.sample(worst.position), dataset.grid
        scenery = read_scenery(sample, dataset.maps[sample.location], grid, _CAMERA)
        rows = arrange(scenery.rig)
        cells = [[_shrink(scenery.images[i]) for i in row] for row in rows]
        width = max(len(row) for row in cells) * (_CAMERA + GAP) + GAP
        cameras = np.concatenate([place_in_row(row, width) for row in cells])
        prediction = worst.percent / np.float32(100)
        errors = find_errors(prediction, worst.labels, self.thresholds, worst.known.tolist())
        views = {
            "prediction": paint_bev(prediction, grid, _SIDE, self.thresholds),
            "ground truth": paint_bev(worst.labels, grid, _SIDE),
            "what is wrong": paint_errors(errors, grid, _SIDE),
        }
        boxes = [cameras, *(add_caption(view, name) for name, view in views.items())]
        height = max(box.shape[0] for box in boxes)
        row = place_in_row(boxes, sum(box.shape[1] + GAP for box in boxes) + GAP)[:height]
        return add_caption(row, f"mean IoU {100 * worst.miou:.1f} %: {sample.scene}, {sample.location}, {sample.token}")


def _shrink(image: Image) -> Image:
    height = max(1, round(_CAMERA * image.shape[0] / image.shape[1]))
    return cv2.resize(image, (_CAMERA, height), interpolation=cv2.INTER_AREA)
