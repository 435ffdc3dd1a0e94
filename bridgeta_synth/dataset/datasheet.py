"""The data sheet of a synthetic dataset: its contents, counted while it is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

import bridgeta_core
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, invert, project, transform
from bridgeta_core.utils.arrays import Bytes, Flags, Floats
from bridgeta_synth.settings import WORLD_VERSION, SynthSettings
from bridgeta_synth.world.light import Light
from bridgeta_synth.world.town.town import Town

DATA_SHEET = "synth.json"
_GRID = BevGrid()  # the label grid of the protocol
_STRIDE = 2  # of the cells whose visibility is checked, in rows and columns
_SQUARE = 20.0  # metres: keyframes in one such square count as one place
_NEAR, _RELATIVE = 1.0, 0.05  # metres, share of the depth


def find_visible(places: Floats, global_T_cam: Matrix, intrinsics: Matrix, depth: NDArray[np.float32]) -> Flags:
    """Find which global places `[n, 3]` a camera sees, from its depth image `[h, w]` in metres along the optical axis.

    A place is seen if the image is as deep as the place, within 1 m or 5 %. Between pixels the inverse depth is
    interpolated, which is linear across the image of a plane: seen from a car, far ground changes by metres per pixel.
    """
    height, width = depth.shape
    pixels, z = project(intrinsics, transform(invert(global_T_cam), places))
    inside = (z > 0.1) & (pixels >= 0).all(axis=1) & (pixels[:, 0] < width - 1) & (pixels[:, 1] < height - 1)
    seen = np.zeros(len(places), dtype=bool)
    u, v = pixels[inside].T
    column, row = u.astype(np.int64), v.astype(np.int64)
    u, v = u - column, v - row
    with np.errstate(divide="ignore"):
        corners = [1 / depth[row + j, column + i].astype(np.float64) for j in (0, 1) for i in (0, 1)]
        shown = 1 / ((1 - v) * ((1 - u) * corners[0] + u * corners[1]) + v * ((1 - u) * corners[2] + u * corners[3]))
    wanted = z[inside]
    seen[inside] = np.abs(shown - wanted) < np.maximum(_NEAR, _RELATIVE * wanted)
    return seen


@dataclass(frozen=True, eq=False)
class LabelCells:
    """The label cells around the vehicle at a keyframe.

    masks: the classes in all cells, `[6, Y, X]`.
    classes, places: for every other row and column, the classes `[6, n]` and the centres on the ground in global
        metres, `[n, 3]`.
    """

    masks: Bytes
    classes: Bytes
    places: Floats

    @classmethod
    def of(cls, town: Town, raster: MapRaster, global_T_ego: Matrix) -> LabelCells:
        """Collect the cells of the label grid around a pose, of which only x, y and yaw count."""
        masks = raster.rasterise(global_T_ego, _GRID)
        x, y = (axis[_STRIDE // 2 :: _STRIDE] for axis in _GRID.centres())
        flat = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        forward = global_T_ego[:2, 0] / np.linalg.norm(global_T_ego[:2, 0])
        left = np.array((-forward[1], forward[0]))
        xy = global_T_ego[:2, 3] + flat[:, :1] * forward + flat[:, 1:] * left
        classes = masks[:, _STRIDE // 2 :: _STRIDE, _STRIDE // 2 :: _STRIDE].reshape(len(masks), -1)
        return cls(masks, classes, np.column_stack((xy, town.height(xy))))


@dataclass
class Tally:
    """Counts of one scene, or of many added up. Lists are in the order of the classes.

    class_cells: label cells with the class; class_keyframes: keyframes that have such a cell.
    checked_cells: those of the class's cells whose visibility was checked; seen_cells: those that a camera sees.
    either_cells, changed_cells: of consecutive keyframes of a scene, pairs of a class and a label cell, relative to the
        vehicle, in which either keyframe has the class, and those in which only one has it.
    weather: scenes by day and night, by the light's kind, and those with rain. annotations: by category.
    places: keyframes by the square of 20 m that they lie in.
    """

    scenes: int = 0
    keyframes: int = 0
    files: int = 0
    cells: int = 0
    class_cells: list[int] = field(default_factory=lambda: [0] * len(CLASS_NAMES))
    class_keyframes: list[int] = field(default_factory=lambda: [0] * len(CLASS_NAMES))
    checked_cells: list[int] = field(default_factory=lambda: [0] * len(CLASS_NAMES))
    seen_cells: list[int] = field(default_factory=lambda: [0] * len(CLASS_NAMES))
    either_cells: int = 0
    changed_cells: int = 0
    weather: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def add_keyframe(self, around: LabelCells, seen: Flags, before: LabelCells | None = None) -> None:
        """Count a keyframe; `seen [n]` says which of its places any camera sees, `before` is the keyframe before it."""
        present = around.classes.astype(bool)
        self.keyframes += 1
        self.cells += around.masks[0].size
        cells = around.masks.sum(axis=(1, 2), dtype=np.int64)
        self.class_cells = _add_lists(self.class_cells, cells)
        self.class_keyframes = _add_lists(self.class_keyframes, cells > 0)
        self.checked_cells = _add_lists(self.checked_cells, present.sum(axis=1))
        self.seen_cells = _add_lists(self.seen_cells, (present & seen).sum(axis=1))
        if before is not None:
            self.either_cells += int(((around.masks + before.masks) > 0).sum())
            self.changed_cells += int((around.masks != before.masks).sum())

    def add_place(self, location: str, x: float, y: float) -> None:
        """Count the place, in global metres, of a keyframe."""
        square = f"{location} {math.floor(x / _SQUARE)} {math.floor(y / _SQUARE)}"
        self.places[square] = self.places.get(square, 0) + 1

    def add_weather(self, light: Light) -> None:
        """Count the weather of a scene."""
        names = {"night" if light.kind == "night" else "day", light.kind, *light.keywords()}
        self.weather = dict(Counter(self.weather) + Counter(sorted(names)))

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, list):
                total: Any = _add_lists(mine, theirs)
            elif isinstance(mine, dict):
                total = mine | {name: mine.get(name, 0) + n for name, n in theirs.items()}
            else:
                total = mine + theirs
            setattr(self, f.name, total)


def _add_lists(a: Sequence[int], b: Iterable[Any]) -> list[int]:
    return [x + int(y) for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class DataSheet:
    """The contents of a synthetic dataset."""

    settings: SynthSettings
    locations: tuple[str, ...]
    tally: Tally

    def compute_class_shares(self) -> dict[str, dict[str, float | None]]:
        """Compute per class its share of the label cells, the share of keyframes that have it, and the share of
        its cells that a camera sees; the last is None for a class that does not occur.
        """
        t = self.tally
        return {
            name: {
                "cells": round(t.class_cells[i] / t.cells, 5),
                "keyframes": round(t.class_keyframes[i] / t.keyframes, 4),
                "visible": round(t.seen_cells[i] / t.checked_cells[i], 4) if t.checked_cells[i] else None,
            }
            for i, name in enumerate(CLASS_NAMES)
        }

    def compute_label_change(self) -> float | None:
        """Compute the share of the labels that differ between consecutive keyframes: 1 - IoU over all classes.

        It is None where no scene has two keyframes.
        """
        t = self.tally
        return round(t.changed_cells / t.either_cells, 4) if t.either_cells else None

    def to_mapping(self) -> dict[str, Any]:
        """Return the content of synth.json."""
        t = self.tally
        return {
            "generator": "bridgeta synth",
            "package": bridgeta_core.__version__,
            "world": WORLD_VERSION,
            "settings": asdict(self.settings),
            "locations": list(self.locations),
            "scenes": t.scenes,
            "keyframes": t.keyframes,
            "files": t.files,
            "places": len(t.places),
            "label_change": self.compute_label_change(),
            "weather_scenes": dict(sorted(t.weather.items())),
            "weather_keyframes": {name: n * self.settings.keyframes for name, n in sorted(t.weather.items())},
            "annotations": dict(sorted(t.annotations.items())),
            "classes_within_50_m": self.compute_class_shares(),
        }

    def page(self) -> Group:
        """Lay out the sheet for a person, to be printed with rich."""
        s, t = self.settings, self.tally
        table = Table()
        table.add_column("within 50 m")
        for name in ("share of cells", "in keyframes", "visible share"):
            table.add_column(name, justify="right")
        for name, share in self.compute_class_shares().items():
            visible = "-" if share["visible"] is None else f"{share['visible']:.0%}"
            table.add_row(name, f"{share['cells']:.2%}", f"{share['keyframes']:.0%}", visible)
        weather = ", ".join(f"{t.weather.get(name, 0)} {name}" for name in ("day", "night", "rain"))
        counts = f"{t.scenes} scenes ({weather}), {t.keyframes} keyframes, {t.files} files"
        change = self.compute_label_change()
        places = f"{len(t.places)} places (squares of {_SQUARE:.0f} m with a keyframe)"
        if change is not None:
            places += f", {change:.0%} of the labels change from one keyframe to the next"
        boxes = f"{sum(t.annotations.values())} annotations in {len(t.annotations)} categories"
        origin = f"split {s.split}, seed {s.seed}, world {WORLD_VERSION}; {', '.join(self.locations)}"
        return Group(table, Text(f"{counts}, {boxes}; {places}; {origin}"))
