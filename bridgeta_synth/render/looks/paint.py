"""Paint the ground: textures, base materials, and marks worn by traffic upon them.

Textures are noise that tiles, and patterns of stones, slabs and cracks. Values are 8 bits wide: 128 is the mean and
SIGMA one standard deviation. Noise repeats every PERIOD metres, which is a whole number of tiles of every scale at
which the ground is painted; patterns repeat every PATTERN metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from bridgeta_core.utils.arrays import Bytes, Floats
from bridgeta_synth.seeds import Seed
from bridgeta_synth.world import materials
from bridgeta_synth.world.materials import ALBEDO_SCALE, MARKS, MATERIALS, ROUGH

SIGMA = 40.0
FINE = 0.05
PERIOD = 102.4
PATTERN = 25.6

_COUNT = 32
_FINER = 3


def make_noise(rng: np.random.Generator, size: int, cells: tuple[int, ...]) -> NDArray[np.float32]:
    """Make noise `[size, size]` with zero mean and unit deviation that tiles without seams."""
    total = np.zeros((size, size), dtype=np.float32)
    for count in cells:
        small = rng.standard_normal((count, count), dtype=np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = size // count
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += large[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
    return (total - total.mean()) / total.std()


def encode(field: NDArray[np.float32]) -> Bytes:
    """Encode a field of zero mean and unit deviation in 8 bits."""
    return np.clip(np.round(128 + SIGMA * field), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Textures:
    """Noise at 5 cm and 10 cm: `grain` of the materials and `wear` of the paint, `[size, size]` each and keyed by
    step; `pools`: where water stays, at 40 cm; `patterns` of materials that have one, at 5 cm.
    """

    grain: dict[float, Bytes]
    wear: dict[float, Bytes]
    pools: Bytes
    patterns: dict[int, Bytes]


@lru_cache(maxsize=4)
def make_textures(seed: Seed) -> Textures:
    """Make the textures of a seed."""
    rng = np.random.default_rng([*seed, 3])
    size = round(PERIOD / FINE)
    half = size // 2
    # From patches of several metres, where the surface has aged differently, to the stones in the asphalt.
    coarse = make_noise(rng, half, (16, 64, 256, 512))
    grain = 0.75 * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_NEAREST)
    grain += 0.66 * rng.standard_normal((size, size), dtype=np.float32)
    worn = make_noise(rng, half, (32, 128, 256, 512))
    wear = {FINE: encode(cv2.resize(worn, (size, size), interpolation=cv2.INTER_LINEAR)), 2 * FINE: encode(worn)}
    pools = encode(make_noise(rng, half // 4, (8, 16, 64)))
    return Textures({FINE: encode(grain), 2 * FINE: encode(coarse)}, wear, pools, _make_patterns(rng))


def _make_patterns(rng: np.random.Generator) -> dict[int, Bytes]:
    slabs = _lay_stones(rng, (64, 64), 0, 0.5, -2.2)
    # Cracks run where a smooth field changes its sign.
    cracks = np.abs(make_noise(rng, 512, (8, 32))) < 0.018
    cracked = 0.9 * make_noise(rng, 512, (16, 64, 256, 512))
    cracked[cracks & (make_noise(rng, 512, (8,)) > 0.2)] = -3.0
    return {
        materials.CONCRETE: encode(slabs + 0.4 * make_noise(rng, 512, (16, 64, 512))),
        materials.PAVING: encode(_lay_stones(rng, (8, 8), 0, 0.7, -1.6) + 0.4 * make_noise(rng, 512, (16, 128, 512))),
        materials.BRICK: encode(_lay_stones(rng, (2, 4), 2, 1.0, 0.0)),
        materials.COBBLE: encode(_lay_stones(rng, (4, 4), 2, 1.0, -1.0)),
        materials.ASPHALT_OLD: encode(cracked),
    }


def _lay_stones(
    rng: np.random.Generator, stone: tuple[int, int], shift: int, spread: float, joint: float
) -> NDArray[np.float32]:
    """Lay a bond of stones (rows, columns in pixels of 5 cm), every other course moved by `shift`. Each stone has
    its own tone; joints have the value `joint` (0: too thin to be seen).
    """
    size = round(PATTERN / FINE)
    tall, wide = stone
    down = np.arange(size)[:, None]
    rows = down // tall
    across = (np.arange(size)[None, :] + shift * (rows % 2)) % size
    tones = rng.standard_normal((size // tall, size // wide), dtype=np.float32)
    field = spread * tones[rows, across // wide]
    if joint:
        field[(down % tall == 0) | (across % wide == 0)] = joint
    return np.asarray(field, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Tile:
    """A painted square: `look [n, n, 4]` (albedo over ALBEDO_SCALE, reflectivity) and `shine [n, n]`, which is
    255 where water stays and 0 on rough ground; all 8 bits.
    """

    look: Bytes
    shine: Bytes


@dataclass(frozen=True, eq=False)
class _Shape:
    material: int
    rings: list[Floats]
    bounds: tuple[float, float, float, float]


class GroundPainter:
    """Paints the ground of a scene.

    `surface`: (material, polygon) from bottom to top, in global metres; shapes outside `low`..`high` are skipped.
    `heading`: the direction, in radians, along which stones and slabs are laid.
    """

    def __init__(
        self,
        surface: list[tuple[int, Polygon]],
        textures: Textures,
        seed: Seed,
        index: int,
        heading: float,
        low: Floats,
        high: Floats,
    ) -> None:
        self._textures, self._heading = textures, heading
        self._shapes = []
        for material, polygon in surface:
            x0, y0, x1, y1 = polygon.bounds
            if x0 < high[0] and x1 > low[0] and y0 < high[1] and y1 > low[1]:
                rings = [np.asarray(ring.coords)[:, :2] for ring in (polygon.exterior, *polygon.interiors)]
                self._shapes.append(_Shape(material, rings, polygon.bounds))
        self._bounds = np.array([shape.bounds for shape in self._shapes]).reshape(-1, 4)
        rng = np.random.default_rng([*seed, 3, index])
        self._looks = _make_looks(rng, seed)
        self._cover = _make_cover(rng)
        smooth = np.array([0 if m in ROUGH else 255 for m in range(_COUNT)], dtype=np.uint8)
        self._shine = np.concatenate((smooth, np.zeros(256 - _COUNT, dtype=np.uint8)))
        self._coarse_patterns = {
            m: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for m, p in textures.patterns.items()
        }

    def draw_tile(self, corner: Floats, step: float, size: int) -> Tile:
        """Paint a square of `size` pixels that starts at `corner`, row 0 at the smallest y; `step` is 0.05 or 0.1 m."""
        base, marks = self._draw_materials(corner, step, size)
        # Every third pixel is centred on a requested pixel.
        base = np.ascontiguousarray(base[1::_FINER, 1::_FINER])
        grain = _cut_window(self._textures.grain[step], corner, step, size)
        for material in self._textures.patterns:
            here = base == material
            if here.any():
                pattern = self._turn_pattern(material, corner, step, size)
                np.copyto(grain, cv2.addWeighted(pattern, 0.9, grain, 0.35, -0.25 * 128), where=here)
        index = base.astype(np.uint16) << 8
        index |= grain
        look = np.take(self._looks, index).view(np.uint8).reshape(size, size, 4)
        shine = cv2.LUT(base, self._shine)
        if marks.any():
            self._lay_marks(look, marks, grain, _cut_window(self._textures.wear[step], corner, step, size))
        return Tile(look, shine)

    def _draw_materials(self, corner: Floats, step: float, size: int) -> tuple[Bytes, Bytes]:
        """Draw base materials and, above them, marks (0: none) of a square, _FINER times as fine as requested.

        cv2 also draws the border of a polygon, half a pixel too wide: in finer pixels that is little.
        """
        far = corner + size * step
        size, step = size * _FINER, step / _FINER
        base = np.full((size, size), materials.GRASS, dtype=np.uint8)
        marks = np.zeros((size, size), dtype=np.uint8)
        any_marks = False
        b = self._bounds
        near = (b[:, 0] < far[0]) & (b[:, 2] > corner[0]) & (b[:, 1] < far[1]) & (b[:, 3] > corner[1])
        for i in np.flatnonzero(near):
            shape = self._shapes[i]
            pixels = [np.round(((ring - corner) / step - 0.5) * 16).astype(np.int32) for ring in shape.rings]
            if shape.material in MARKS:
                cv2.fillPoly(marks, pixels, shape.material, cv2.LINE_8, 4)
                any_marks = True
            else:
                cv2.fillPoly(base, pixels, shape.material, cv2.LINE_8, 4)
                # A new surface covers what was painted on the old one.
                if any_marks:
                    cv2.fillPoly(marks, pixels, 0, cv2.LINE_8, 4)
        return base, marks

    def _turn_pattern(self, material: int, corner: Floats, step: float, size: int) -> Bytes:
        """Cut a square of a material's pattern, turned into the direction of the street."""
        pattern = (self._textures.patterns if step < 0.07 else self._coarse_patterns)[material]
        c, s = math.cos(self._heading), math.sin(self._heading)
        turn = np.array(((c, s), (-s, c)))
        # Subtract whole periods first: warpAffine counts in 16 bits.
        start = (turn @ corner % PATTERN) / step
        matrix = np.concatenate((turn, start[:, None]), axis=1)
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(pattern, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_WRAP), dtype=np.uint8
        )

    def _lay_marks(self, look: Bytes, marks: Bytes, grain: Bytes, wear: Bytes) -> None:
        """Lay marks, finer than the square, over it, in place: as thick as the wear leaves them."""
        number = cv2.dilate(marks, np.ones((_FINER, _FINER), np.uint8))[1::_FINER, 1::_FINER].reshape(-1)
        at = np.flatnonzero(number)
        kind = number[at].astype(np.uint16) << 8
        there = np.minimum(marks, 1) * np.uint8(255)
        part = cv2.resize(there, None, fx=1 / _FINER, fy=1 / _FINER, interpolation=cv2.INTER_AREA).reshape(-1)[at]
        left = np.take(self._cover, kind | wear.reshape(-1)[at])
        share = (part.astype(np.float32) * left / 255**2)[:, None]
        shown = np.take(self._looks, kind | grain.reshape(-1)[at])
        over = shown.view(np.uint8).reshape(-1, 4).astype(np.float32)
        flat = look.reshape(-1, 4)
        below = flat[at].astype(np.float32)
        flat[at] = np.round(below + share * (over - below)).astype(np.uint8)


def _cut_window(tile: Bytes, corner: Floats, step: float, size: int) -> Bytes:
    """Cut a square from noise that repeats every PERIOD metres, as an array of its own."""
    period = round(PERIOD / step)
    x, y = np.floor(corner / step + 0.5).astype(np.int64) % period
    if x + size <= period and y + size <= period:
        return tile[y : y + size, x : x + size].copy()
    rows, columns = (y + np.arange(size)) % period, (x + np.arange(size)) % period
    return tile[rows[:, None], columns]


def _make_looks(rng: np.random.Generator, seed: Seed) -> NDArray[np.uint32]:
    """Make a table of albedo and reflectivity, four bytes in one number, by index = material * 256 + noise."""
    # Splits have stone from different quarries: a mild tint on all mineral materials.
    split = seed[1] if len(seed) > 1 else 0
    earth = np.array(((1.0, 1.0, 1.0), (1.05, 1.0, 0.93), (0.97, 1.0, 1.04)))[split % 3]
    table = np.zeros((_COUNT, 256, 4))
    z = (np.arange(256) - 128) / SIGMA
    for number, (albedo, spread, reflectivity) in enumerate(MATERIALS):
        tone = math.exp(rng.normal(0, 0.10 if number in MARKS else 0.16))
        tint = 1 + rng.normal(0, 0.025, 3)
        colour = np.array(albedo) * earth * tone * tint
        strength = np.clip(1 + 0.6 * spread * z, 0.25, 2.2)
        shown = colour * strength[:, None]
        if number in (materials.GRASS, materials.BED):
            # From lush to dry.
            dry = np.clip(0.30 + 0.25 * z + 0.15 * rng.normal(), 0, 0.9)[:, None]
            shown = shown * (1 - dry) + dry * np.array((0.17, 0.145, 0.075)) * strength[:, None]
        table[number, :, :3] = 255 / ALBEDO_SCALE * shown
        table[number, :, 3] = reflectivity * np.sqrt(strength)
    packed = np.clip(np.round(table), 0, 255).astype(np.uint8)
    return packed.reshape(-1, 4).view(np.uint32)[:, 0]


def _make_cover(rng: np.random.Generator) -> Bytes:
    """Make a table of how much (0-255) of marks is left, by index = material * 256 + wear."""
    z = (np.arange(256) - 128) / SIGMA + float(rng.uniform(-0.3, 0.6))
    cover = np.zeros((_COUNT, 256))
    for mark in (materials.WHITE, materials.YELLOW, materials.ZEBRA):
        cover[mark] = np.clip(0.96 + 0.5 * np.minimum(z + 1.3, 0), 0.25, 1)
    for mark in (materials.WHITE_WORN, materials.YELLOW_WORN, materials.ZEBRA_WORN):
        cover[mark] = np.clip(0.45 + 0.40 * z, 0.04, 0.85)
    cover[materials.SEAM] = np.clip(0.80 + 0.15 * z, 0.3, 0.95)
    cover[materials.TYRE] = np.clip(0.30 + 0.18 * z, 0, 0.6)
    cover[materials.REMOVED_PAINT] = np.clip(0.17 + 0.10 * z, 0.02, 0.4)
    cover[materials.CRACK] = np.clip(0.60 + 0.30 * z, 0, 0.9)
    return np.round(255 * cover).astype(np.uint8).reshape(-1)
