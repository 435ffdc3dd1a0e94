"""Draw what the cameras of a rig see of the grid."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bridgeta_core.config.experiment import StudentConfig
from bridgeta_core.geometry.coverage import CameraCoverage, find_remarks, measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image, fit_images
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.view.drawing import PAPER, Colour, apply_turbo, paint_cells, write
from bridgeta_core.view.sample import check_format, write_picture

_SIDE, _LEGEND = 720, 560  # pixels
_LINE = 20
_WARNING: Colour = (200, 30, 30)


def write_rig_picture(path: Path, out: Path, weights: str | Path | None = None) -> list[str]:
    """Write the picture of what the cameras of a rig file see, and return remarks on it.

    `weights` say which part of the images and which grid; without them it is nuScenes' standard. `out` ends in .png or
    .jpg. Raises BridgeTAError when the rig or the weights cannot be used.
    """
    check_format(out)
    rig, grid, model = Rig.load(path), BevGrid(), StudentConfig()
    if weights is not None:
        from bridgeta_core.deploy.weights import read_info

        info = read_info(weights)
        grid, model = info.grid, info.model
    fits = list(fit_images(rig, model.image.size, model.image.margin).values())
    coverage = measure_coverage(rig, fits, grid, model.lift.depth_min, model.lift.depth_max)
    remarks = find_remarks(coverage)
    write_picture(draw_coverage(coverage, grid, remarks), out)
    return remarks


def draw_coverage(coverage: Sequence[CameraCoverage], grid: BevGrid, remarks: Sequence[str] = ()) -> Image:
    """Draw the cells that each camera sees, in a colour of its own and from above, with a legend; RGB.

    Where several cameras look, their colours mix.
    """
    colours = apply_turbo((np.arange(len(coverage)) + 0.5) / len(coverage))
    total, count = np.zeros((*grid.shape, 3)), np.zeros(grid.shape)
    for view, colour in zip(coverage, colours, strict=True):
        total[view.seen] += colour
        count += view.seen
    cells = np.where(count[..., None] > 0, (total / np.maximum(count, 1)[..., None] + np.array(PAPER)) / 2, PAPER)
    upright = np.ascontiguousarray(cells.round().astype(np.uint8).transpose(1, 0, 2)[::-1, ::-1])
    picture = paint_cells(upright, grid, _SIDE)
    legend = _draw_legend(coverage, colours, remarks)
    height = max(picture.shape[0], legend.shape[0])
    gaps = [((0, height - part.shape[0]), (0, 0), (0, 0)) for part in (picture, legend)]
    parts = [np.pad(part, gap, constant_values=PAPER[0]) for part, gap in zip((picture, legend), gaps, strict=True)]
    return np.hstack(parts)


def _draw_legend(coverage: Sequence[CameraCoverage], colours: Bytes, remarks: Sequence[str]) -> Image:
    lines: list[tuple[str, Colour | None]] = []
    for view, colour in zip(coverage, colours.tolist(), strict=True):
        x, y, z = view.camera.ego_T_cam[:3, 3]
        first, end = view.rows
        lines += [
            (view.camera.name, tuple(colour)),
            (f"    {view.camera.width}x{view.camera.height}, at {x:.2f} {y:.2f} {z:.2f} m", None),
            (f"    {view.describe()}", None),
            (
                f"    rows {first} to {end - 1} of {view.fit.source[1]}{', undistorted' * view.camera.is_distorted}",
                None,
            ),
        ]
    unseen = 1 - float(np.any([view.seen for view in coverage], axis=0).mean())
    lines += [("", None), (f"seen by no camera: {100 * unseen:.2g} % of the grid; up is forward", None), ("", None)]
    warnings = [line for remark in remarks for line in textwrap.wrap(remark, 62)]
    box = np.full(((len(lines) + len(warnings) + 2) * _LINE, _LEGEND, 3), PAPER, dtype=np.uint8)
    for i, (text, swatch) in enumerate(lines):
        bottom = (i + 1) * _LINE
        if swatch is not None:
            cv2.rectangle(box, (12, bottom - 12), (32, bottom), swatch, cv2.FILLED)
        write(box, text, (40, bottom), 0.45)
    for i, text in enumerate(warnings):
        write(box, text, (12, (len(lines) + i + 1) * _LINE), 0.45, _WARNING)
    return box
