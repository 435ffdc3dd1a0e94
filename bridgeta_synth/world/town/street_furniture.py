"""Street furniture: trees, lamps, signals, signs, bins, benches; `buildings` adds houses and fences.

Nothing here depends on roads. Furniture follows outlines of areas, with the area on their left: outlines of what is
paved (kerbs), and of all public ground (fronts, behind which plots begin).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_core.utils.arrays import Flags, Floats
from bridgeta_synth.world.solids import BIN, CROWN, LAMP, LAMPHEAD, POLE, SIGN, Colour, SolidList, Solids
from bridgeta_synth.world.streets.layouts import PALETTES, Palette
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance

_STEEL: Colour = (0.42, 0.43, 0.44)
_DARK: Colour = (0.25, 0.26, 0.27)


class Furnisher:
    """The solids of a place and the ground below them.

    `height` gives the ground's height in metres at places `[..., 2]`; `driving_side` is +1 where traffic keeps right.
    """

    def __init__(
        self,
        height: Callable[[Points], Floats],
        rng: np.random.Generator,
        palette: Palette = PALETTES[0],
        driving_side: int = 1,
    ) -> None:
        self.rng, self.palette = rng, palette
        self._height, self._driving_side = height, driving_side
        self._solids = SolidList()
        self._anchors: list[tuple[float, float]] = []
        self._sunk: list[bool] = []
        self._lamps: list[tuple[float, float, float]] = []
        self._plots: list[Polygon] = []
        self._tree: STRtree | None = None

    def add(
        self,
        anchor: tuple[float, float],
        kind: int,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        colour: Colour,
        sunk: bool = False,
        **options: Any,
    ) -> None:
        """Append a solid whose z counts from the ground at `anchor`; `options` are those of `SolidList.add`.

        A `sunk` solid reaches down to the lowest ground below its corners; its top stays.
        """
        self._solids.add(kind, centre, size, colour, **options)
        self._anchors.append(anchor)
        self._sunk.append(sunk)

    def occupy(self, plot: Polygon) -> None:
        """Reserve a plot: nothing else is placed there."""
        self._plots.append(plot)
        self._tree = None

    def is_free(self, points: Points, gap: float, taken: BaseGeometry) -> Flags:
        """Return which of `points [n, 2]` are at least `gap` metres from what is taken and from all plots."""
        spots = shapely.points(points)
        free = ~shapely.dwithin(taken, spots, gap)
        if self._plots:
            self._tree = self._tree or STRtree(self._plots)
            free[self._tree.query(spots, predicate="dwithin", distance=gap)[0]] = False
        return free

    def build(self) -> tuple[Solids, Floats]:
        """Return all solids on their ground, and the heads of the lamps `[n, 3]`."""
        solids = self._solids.build()
        if len(solids):
            solids.z = solids.z + self._height(np.array(self._anchors))
            sunk = np.array(self._sunk)
            low = self._height(solids.corners()[sunk, :4, :2]).min(axis=1)
            drop = np.maximum(solids.z[sunk] - low, 0)
            solids.z[sunk] -= drop
            solids.height[sunk] += drop
            # Sides are given at the base, which has moved down.
            for side, lean in (("front", "lean_front"), ("back", "lean_back"), ("side", "lean_side")):
                getattr(solids, side)[sunk] += drop * getattr(solids, lean)[sunk]
        lamps = np.array(self._lamps).reshape(-1, 3)
        lamps[:, 2] += self._height(lamps[:, :2])
        return solids, lamps

    def add_street_trees(self, kerbs: list[Points], taken: BaseGeometry) -> None:
        """Add rows of trees along stretches of the kerbs, clear of what is `taken` (paved)."""
        for points, _ in self._draw_places(kerbs, taken, 9.5, 1.0, 0.45, 30.0, 0.4):
            low, high = (4.5, 8.0) if self.rng.random() < 0.7 else (8.0, 12.0)
            for x, y in points:
                if self.rng.random() < 0.75:
                    self.add_tree(x, y, float(self.rng.uniform(low, high)))

    def add_street_lamps(self, kerbs: list[Points], taken: BaseGeometry) -> None:
        """Add lamps about every 30 m behind the kerbs, their arms over the road."""
        tall = self.rng.random() < 0.6
        for points, ways in self._draw_places(kerbs, taken, 31.0, 0.6, 0.62, 90.0, 0.25):
            for (x, y), way in zip(points, ways, strict=True):
                # The road is on the left of its outline.
                self.add_lamp(x, y, way + math.pi / 2, 8.5 if tall else 6.0)

    def add_small_objects(self, kerbs: list[Points], taken: BaseGeometry) -> None:
        """Add signs, bins, cabinets, benches and bollards behind the kerbs."""
        rng = self.rng
        for points, ways in self._draw_places(kerbs, taken, 17.0, 0.7, 0.5, 51.0, 0.3):
            for (x, y), way in zip(points, ways, strict=True):
                draw = rng.random()
                if draw < 0.30:
                    # Where traffic keeps right it runs along the outline, and signs face it.
                    self.add_sign(x, y, way + (math.pi if self._driving_side > 0 else 0.0), int(rng.integers(1 << 16)))
                elif draw < 0.48:
                    self.add_bin(x, y, way)
                elif draw < 0.58:
                    self.add_cabinet(x, y, way)
                elif draw < 0.68:
                    self.add_bench(x, y, way)
                elif draw < 0.78:
                    for i in range(int(rng.integers(3, 7))):
                        at = (x + 1.4 * i * math.cos(way), y + 1.4 * i * math.sin(way))
                        if self.is_free(np.array([at]), 0.2, taken)[0]:
                            self.add(at, POLE, (*at, 0.0), (0.14, 0.14, 0.9), (0.30, 0.31, 0.32))

    def _draw_places(
        self, kerbs: list[Points], taken: BaseGeometry, step: float, out: float, share: float, run: float, gap: float
    ) -> list[tuple[list[tuple[float, float]], list[float]]]:
        """Draw free places, `step` metres apart and `out` metres outside the outlines, with the outline's headings.

        They come in runs of about `run` metres, of which a `share` stays.
        """
        places = []
        shapely.prepare(taken)
        for ring in kerbs:
            length = float(arc_length(ring)[-1])
            s = np.arange(float(self.rng.uniform(0, step)), length, step)
            runs = np.floor((s + self.rng.uniform(0, run)) / run).astype(int)
            planted = self.rng.random(int(length / run) + 3) < share
            if not len(s):
                continue
            here, ahead = at_distance(ring, s), at_distance(ring, np.minimum(s + 0.5, length))
            way = np.arctan2(*(ahead - here).T[::-1])
            points = here + out * np.stack((np.sin(way), -np.cos(way)), axis=1)
            free = self.is_free(points, gap, taken) & planted[runs]
            for number in np.unique(runs[free]):
                chosen = free & (runs == number)
                places.append(([(float(x), float(y)) for x, y in points[chosen]], way[chosen].tolist()))
        return places

    def add_groves(self, area: BaseGeometry, taken: BaseGeometry, density: float, gap: float = 2.5) -> None:
        """Scatter trees and bushes over an area, at most `density` per square metre, clear of what is `taken`."""
        rng = self.rng
        count = int(rng.poisson(density * area.area))
        if not count or area.is_empty:
            return
        low_x, low_y, high_x, high_y = area.bounds
        share = area.area / max((high_x - low_x) * (high_y - low_y), 1e-6)
        points = rng.uniform((low_x, low_y), (high_x, high_y), (int(count / max(share, 0.02)), 2))
        shapely.prepare(area)
        shapely.prepare(taken)
        points = points[shapely.contains_xy(area, points[:, 0], points[:, 1])]
        for x, y in points[self.is_free(points, gap, taken)] if len(points) else ():
            if rng.random() < 0.3:
                self.add_bush(float(x), float(y))
            else:
                self.add_tree(float(x), float(y), float(rng.uniform(4.5, 13)))

    def add_benches(self, area: BaseGeometry, taken: BaseGeometry, density: float) -> None:
        """Scatter benches over an area."""
        low_x, low_y, high_x, high_y = area.bounds
        count = int(density * (high_x - low_x) * (high_y - low_y))
        points = self.rng.uniform((low_x, low_y), (high_x, high_y), (count, 2))
        inside = points[shapely.contains_xy(area, points[:, 0], points[:, 1])]
        for x, y in inside[self.is_free(inside, 2.0, taken)] if len(inside) else ():
            self.add_bench(float(x), float(y), float(self.rng.uniform(0, 2 * math.pi)))

    def add_tree(self, x: float, y: float, height: float) -> None:
        """Add a tree: broad with one to three lobes, or narrow."""
        rng = self.rng
        colour = self._draw_leaf_colour()
        narrow = rng.random() < 0.12
        crown = (0.82 if narrow else 0.62) * height
        width = crown * float(rng.uniform(0.25, 0.35) if narrow else rng.uniform(0.7, 1.0))
        trunk = 0.12 + 0.014 * height
        self.add((x, y), POLE, (x, y, -0.1), (trunk, trunk, height - 0.7 * crown + 0.1), (0.30, 0.24, 0.18))
        seed = int(rng.integers(1 << 16))
        for lobe in range(1 if narrow else int(rng.integers(1, 4))):
            turn, share = seed + lobe * 2.1, (1.0, 0.72, 0.62)[lobe]
            out = (0.0, 0.3, 0.34)[lobe] * width
            place = (
                x + out * math.cos(turn),
                y + out * math.sin(turn),
                height - crown + (0.0, 0.05, 0.3)[lobe] * crown,
            )
            size = (share * width, share * width * 0.94, share * crown)
            self.add((x, y), CROWN, place, size, colour, yaw=turn, seed=seed + lobe, is_round=True)

    def add_bush(self, x: float, y: float) -> None:
        """Add a bush."""
        size = float(self.rng.uniform(0.8, 2.2))
        seed = int(self.rng.integers(1 << 16))
        shape = (size, 0.9 * size, 0.8 * size)
        self.add(
            (x, y),
            CROWN,
            (x, y, -0.15 * size),
            shape,
            self._draw_leaf_colour(),
            yaw=float(seed),
            seed=seed,
            is_round=True,
        )

    def _draw_leaf_colour(self) -> Colour:
        green = float(self.rng.uniform(0.8, 1.2))
        r, g, b = self.palette.leaves[int(self.rng.integers(len(self.palette.leaves)))]
        return r * green, g * green, b * green

    def add_lamp(self, x: float, y: float, yaw: float, height: float) -> None:
        """Add a street lamp with an arm towards `yaw`."""
        c, s = math.cos(yaw), math.sin(yaw)
        reach = 1.8 if height > 7 else 0.9
        self.add((x, y), POLE, (x, y, -0.1), (0.15, 0.15, height + 0.1), _STEEL)
        arm = (x + c * reach / 2, y + s * reach / 2, height - 0.1)
        self.add((x, y), POLE, arm, (reach, 0.1, 0.1), _STEEL, yaw=yaw)
        head = (x + c * reach, y + s * reach)
        self.add((x, y), LAMPHEAD, (*head, height - 0.12), (0.7, 0.28, 0.14), _STEEL, yaw=yaw)
        self._lamps.append((*head, height - 0.12))

    def add_signal(self, x: float, y: float, yaw: float) -> None:
        """Add a traffic signal that faces `yaw`."""
        self.add((x, y), POLE, (x, y, -0.1), (0.14, 0.14, 3.5), _DARK)
        state = int(self.rng.integers(3))
        # The lamps are on the back of the solid.
        size = (0.3, 0.32, 0.95)
        self.add((x, y), LAMP, (x, y, 2.5), size, (0.06, 0.06, 0.06), yaw=yaw + math.pi, seed=state)

    def add_sign(self, x: float, y: float, yaw: float, seed: int) -> None:
        """Add a plate on a pole that faces `yaw`; `seed` chooses its look."""
        self.add((x, y), POLE, (x, y, -0.1), (0.07, 0.07, 2.9), _STEEL)
        c, s = math.cos(yaw), math.sin(yaw)
        size = float(self.rng.choice((0.6, 0.6, 0.75)))
        place = (x + 0.06 * c, y + 0.06 * s, 2.9 - size - 0.05)
        self.add((x, y), SIGN, place, (0.04, size, size), (0.85, 0.85, 0.85), yaw=yaw, seed=seed)

    def add_bin(self, x: float, y: float, yaw: float) -> None:
        """Add a litter bin, or a bin on wheels."""
        colour = ((0.16, 0.28, 0.20), (0.22, 0.24, 0.26), (0.15, 0.22, 0.36))[int(self.rng.integers(3))]
        size = (0.45, 0.45, 0.9) if self.rng.random() < 0.6 else (0.6, 0.75, 1.1)
        self.add((x, y), BIN, (x, y, 0.0), size, colour, yaw=yaw)

    def add_cabinet(self, x: float, y: float, yaw: float) -> None:
        """Add a utility cabinet."""
        size = (float(self.rng.uniform(0.7, 1.4)), 0.4, float(self.rng.uniform(1.0, 1.5)))
        self.add((x, y), BIN, (x, y, -0.1), size, (0.52, 0.56, 0.52), yaw=yaw)

    def add_bench(self, x: float, y: float, yaw: float) -> None:
        """Add a bench: seat and back."""
        c, s = math.cos(yaw), math.sin(yaw)
        wood: Colour = (0.45, 0.32, 0.20)
        self.add((x, y), BIN, (x, y, 0.0), (1.7, 0.45, 0.45), wood, yaw=yaw)
        self.add((x, y), BIN, (x + 0.2 * s, y - 0.2 * c, 0.45), (1.7, 0.06, 0.4), wood, yaw=yaw)
