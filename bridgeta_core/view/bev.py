"""Paint what lies in the cells of a grid: map classes, and what is wrong with a prediction of them.

The same colours show in pictures, in the report of a replay, and in RViz and Foxglove.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES, THRESHOLD
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.utils.arrays import Bytes, Flags
from bridgeta_core.view.drawing import PAINT_ORDER, PAPER, Colour, paint_cells

# How opaque a class is inside its outline, in thirds of the way from its threshold to 1. The outline is fully so.
OPACITIES = (0.35, 0.55, 0.75)
HATCH: tuple[Colour, Colour] = ((205, 208, 212), (226, 228, 231))  # the stripes of what is unknown
HATCH_PERIOD, HATCH_WIDTH = 6, 2  # cells
RIGHT, MISSED, INVENTED = 1, 2, 3
ERROR_COLOURS: dict[str, Colour] = {"right": (196, 200, 204), "missed": (0, 114, 178), "invented": (213, 94, 0)}
_LEVELS = len(OPACITIES) + 1  # of a class: its opacities, and its outline
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def colour_cells(
    values: NDArray[np.generic], thresholds: Sequence[float] | None = None, seen: Flags | None = None
) -> Image:
    """Colour labels or probabilities `[6, Y, X]` by class; the result `[X, Y, 3]` has a pixel per cell, forward up.

    A class shows from its threshold on, and covers those before it in `PAINT_ORDER`: fully opaque along its outline,
    and inside by how sure it is (`OPACITIES`). Cells that are not `seen`, and those with NaN in every class, are
    hatched. `thresholds` are one per class, or all `THRESHOLD`.
    """
    # In bytes and by masks of bits, since the node does this for every set: masked assignments, which branch at every
    # cell, take three times as long.
    if thresholds is None:
        thresholds = (THRESHOLD,) * len(CLASSES)
    planes = np.ascontiguousarray(np.asarray(values, dtype=np.float32).transpose(0, 2, 1)[:, ::-1, ::-1])
    shown = np.zeros(planes.shape[1:], dtype=np.uint8)  # an entry of the palette
    for name in PAINT_ORDER:
        number = CLASS_NAMES.index(name)
        plane, threshold = planes[number], thresholds[number]
        present = _reach(plane, threshold)
        level = np.full_like(shown, 1 + _LEVELS * number)
        for third in range(1, len(OPACITIES)):
            level += _reach(plane, threshold + (1 - threshold) * third / len(OPACITIES))
        outline = present - cv2.erode(present, _CROSS, borderType=cv2.BORDER_REPLICATE)
        shown ^= (shown ^ level) & np.negative(present)  # all bits
        shown ^= (shown ^ np.uint8(_LEVELS * (number + 1))) & np.negative(outline)
    picture = cv2.LUT(cv2.merge([shown] * 3), _PALETTE)
    unknown = np.isnan(planes).all(axis=0)
    if seen is not None:
        unknown |= ~seen.T[::-1, ::-1]
    return hatch(picture, unknown) if unknown.any() else picture


def _reach(plane: NDArray[np.float32], threshold: float) -> Bytes:
    with np.errstate(invalid="ignore"):
        return (plane >= np.float32(threshold)).view(np.uint8)


def hatch(picture: Image, unknown: Flags) -> Image:
    """Hatch the `unknown` pixels of a picture, in place, and return it."""
    rows, columns = unknown.shape
    stripes = (np.arange(rows)[:, None] + np.arange(columns)) % HATCH_PERIOD < HATCH_WIDTH
    pattern = np.where(stripes[..., None], *np.array(HATCH, dtype=np.uint8))
    cv2.copyTo(pattern, np.ascontiguousarray(unknown).view(np.uint8), picture)
    return picture


def tint(colour: Colour, opacity: float) -> Colour:
    """Mix a colour with the paper."""
    red, green, blue = (round(opacity * c + (1 - opacity) * p) for c, p in zip(colour, PAPER, strict=True))
    return red, green, blue


def paint_bev(
    values: NDArray[np.generic],
    grid: BevGrid,
    side: int,
    thresholds: Sequence[float] | None = None,
    seen: Flags | None = None,
) -> Image:
    """Paint labels or probabilities `[6, Y, X]` as `colour_cells` does, with range rings and the vehicle.

    The longer side is `side` pixels.
    """
    return paint_cells(colour_cells(values, thresholds, seen), grid, side)


def find_errors(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    thresholds: Sequence[float] | None = None,
    known: Sequence[bool] = (True,) * len(CLASSES),
) -> Bytes:
    """Compare a prediction with labels, both `[6, Y, X]`, cell by cell: `[Y, X]` of RIGHT, MISSED, INVENTED, or 0.

    What counts is the class that comes last in `PAINT_ORDER` of those that are there or predicted: MISSED where it is
    only there, INVENTED where it is only predicted. Classes that are not `known` do not count.
    """
    if thresholds is None:
        thresholds = (THRESHOLD,) * len(CLASSES)
    errors = np.zeros(truth.shape[1:], dtype=np.uint8)
    for name in PAINT_ORDER:
        number = CLASS_NAMES.index(name)
        if not known[number]:
            continue
        there = np.asarray(truth[number]) > 0
        predicted = np.asarray(prediction[number], dtype=np.float32) >= np.float32(thresholds[number])
        errors[there | predicted] = INVENTED
        errors[there] = MISSED
        errors[there & predicted] = RIGHT
    return errors


def paint_errors(errors: Bytes, grid: BevGrid, side: int, seen: Flags | None = None) -> Image:
    """Paint what `find_errors` found, in `ERROR_COLOURS`, with range rings and the vehicle."""
    palette = np.array([PAPER, *ERROR_COLOURS.values()], dtype=np.uint8)
    upright = np.ascontiguousarray(palette[errors].transpose(1, 0, 2)[::-1, ::-1])
    if seen is not None:
        hatch(upright, ~seen.T[::-1, ::-1])
    return paint_cells(upright, grid, side)


_PALETTE = np.zeros((1, 256, 3), dtype=np.uint8)
_PALETTE[0, : 1 + _LEVELS * len(CLASSES)] = [PAPER, *(tint(c.colour, o) for c in CLASSES for o in (*OPACITIES, 1.0))]
