"""The ground: its height, its materials, and its picture at several scales around a scene.

Flat so far. A height field would replace `Ground.height` and `Ground.intersect`; the poses, the bases of the solids,
the boxes and the shadows would have to ask them, where they take z = 0 today.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry import Polygon
from torch import Tensor
from torch.nn import functional

GRASS, DIRT, CONCRETE, PAVING, KERB, ASPHALT, PATCH, CARPARK, WHITE, YELLOW, ZEBRA = range(11)
# Colours in [0, 1], how much they vary, and the reflectivity for LiDAR (0-255).
_MATERIALS: tuple[tuple[tuple[float, float, float], float, float], ...] = (
    ((0.31, 0.39, 0.19), 0.30, 24),
    ((0.47, 0.43, 0.35), 0.20, 22),
    ((0.55, 0.54, 0.51), 0.10, 26),
    ((0.60, 0.57, 0.53), 0.10, 28),
    ((0.70, 0.69, 0.67), 0.06, 34),
    ((0.36, 0.36, 0.37), 0.12, 10),
    ((0.29, 0.29, 0.30), 0.10, 7),
    ((0.40, 0.395, 0.39), 0.14, 12),
    ((0.86, 0.86, 0.84), 0.05, 90),
    ((0.83, 0.66, 0.20), 0.05, 80),
    ((0.85, 0.85, 0.83), 0.06, 90),
)
SHADE = 0.52
_NOISE_STEP = 0.1
_FINE, _BASE = 0.05, 0.1


def _octaves(rng: np.random.Generator, size: int, cells: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise `[size, size]` with zero mean and unit deviation that tiles without seams."""
    total = np.zeros((size, size), dtype=np.float32)
    for count in cells:
        small = rng.standard_normal((count, count)).astype(np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = size // count
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += large[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
    return (total - total.mean()) / total.std()


def _palette() -> NDArray[np.uint8]:
    """Colours and reflectivity `[256, 4]` of index = (material * 8 + noise level) * 2 + shaded."""
    table = np.zeros((256, 4), dtype=np.float64)
    asphalt = np.array(_MATERIALS[ASPHALT][0])
    for material, (colour, spread, reflectivity) in enumerate(_MATERIALS):
        for level in range(8):
            strength = 1 + spread * (level - 3.5) / 3.5
            base = np.array(colour)
            # Worn paint lets the asphalt through where the noise is low.
            worn = {0: 0.55, 1: 0.3, 2: 0.12}.get(level, 0.0) if material >= WHITE else 0.0
            shown = ((1 - worn) * base + worn * asphalt) * strength
            if material == GRASS:
                shown = shown + np.array((0.05, 0.02, 0.0)) * (level - 3.5) / 3.5
            for shaded in range(2):
                shade = np.array((SHADE * 0.94, SHADE, SHADE * 1.1)) if shaded else 1.0
                table[(material * 8 + level) * 2 + shaded, :3] = 255 * shown * shade
                table[(material * 8 + level) * 2 + shaded, 3] = (1 - worn) * reflectivity + worn * 10
    return np.clip(np.round(table), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Bounds:
    """A rectangle in global metres."""

    x0: float
    y0: float
    x1: float
    y1: float

    def grown(self, margin: float) -> Bounds:
        """The rectangle with a margin around it."""
        return Bounds(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin)


def _to_pixels(ring: NDArray[np.float64], bounds: Bounds, step: float) -> NDArray[np.int32]:
    # Pixel (0, 0) has its centre half a step inside the corner; four fractional bits.
    return np.round(((ring[:, :2] - (bounds.x0, bounds.y0)) / step - 0.5) * 16).astype(np.int32)


def paint(
    surface: list[tuple[int, Polygon]],
    shadows: list[NDArray[np.float64]],
    bounds: Bounds,
    step: float,
    noise: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Colour and reflectivity `[rows, columns, 4]` of a piece of ground; row 0 at the smallest y.

    `surface` is drawn from first to last, then `shadows` (convex rings `[n, 2]`) over it.
    """
    columns, rows = round((bounds.x1 - bounds.x0) / step), round((bounds.y1 - bounds.y0) / step)
    index = np.full((rows, columns), GRASS << 4, dtype=np.uint8)
    for material, polygon in surface:
        low_x, low_y, high_x, high_y = polygon.bounds
        if low_x > bounds.x1 or high_x < bounds.x0 or low_y > bounds.y1 or high_y < bounds.y0:
            continue
        rings = [np.asarray(polygon.exterior.coords), *(np.asarray(h.coords) for h in polygon.interiors)]
        cv2.fillPoly(index, [_to_pixels(r, bounds, step) for r in rings], material << 4, cv2.LINE_8, 4)
    xs = np.floor((bounds.x0 + (np.arange(columns) + 0.5) * step) / _NOISE_STEP).astype(np.int64) % noise.shape[1]
    ys = np.floor((bounds.y0 + (np.arange(rows) + 0.5) * step) / _NOISE_STEP).astype(np.int64) % noise.shape[0]
    wide = noise[:, xs]
    for row in range(rows):
        index[row] |= wide[ys[row]]
    if shadows:
        mask = np.zeros_like(index)
        for ring in shadows:
            low, high = ring.min(axis=0), ring.max(axis=0)
            if low[0] < bounds.x1 and high[0] > bounds.x0 and low[1] < bounds.y1 and high[1] > bounds.y0:
                cv2.fillConvexPoly(mask, _to_pixels(ring, bounds, step), 1, cv2.LINE_8, 4)
        index |= mask
    palette = _palette()
    return cv2.merge([cv2.LUT(index, np.ascontiguousarray(palette[:, i])) for i in range(4)])


class Ground:
    """The ground of one scene: `height`, ray intersection, and its colour at any place and scale.

    Around the scene's path it is stored at 5 cm, further away at 10, 20, 40 and 80 cm, each step the mean of the one
    before, so that distant paint fades instead of sparkling.
    """

    def __init__(
        self,
        surface: list[tuple[int, Polygon]],
        shadows: list[NDArray[np.float64]],
        path: NDArray[np.float64],
        seed: int,
        device: torch.device,
        reach: float = 160.0,
    ) -> None:
        rng = np.random.default_rng([seed, 3])
        field = _octaves(rng, 1024, (16, 64, 256, 512))
        noise = np.left_shift(np.clip((field + 2) * 2, 0, 7.99).astype(np.uint8), 1, dtype=np.uint8)
        low, high = np.floor(path.min(axis=0)), np.ceil(path.max(axis=0))
        core = Bounds(*low, *high)
        fine = core.grown(28.0)
        wide = core.grown(reach)
        # The blur takes the stairs off slanting paint, which is drawn without antialiasing.
        closest = cv2.GaussianBlur(paint(surface, shadows, fine, _FINE, noise), (3, 3), 0.7)
        levels: list[tuple[Bounds, NDArray[np.uint8]]] = [(fine, closest)]
        picture = paint(surface, shadows, wide, _BASE, noise)
        near = core.grown(80.0)
        cut = round((reach - 80.0) / _BASE)
        levels.append((near, picture[cut : picture.shape[0] - cut, cut : picture.shape[1] - cut]))
        for _ in range(3):
            picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            levels.append((wide, picture))
        self._levels = []
        for bounds, values in levels:
            tensor = torch.from_numpy(np.ascontiguousarray(values)).to(device).permute(2, 0, 1).float().div_(255)
            self._levels.append((bounds, tensor[None].contiguous()))
        grain = _octaves(rng, 256, (64, 128, 256))
        self._grain = torch.from_numpy(np.clip(1 + 0.07 * grain, 0.75, 1.25).astype(np.float32)).to(device)

    def height(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height in metres at places `[..., 2]`."""
        return np.zeros(xy.shape[:-1])

    def intersect(self, origin: Tensor, directions: Tensor) -> Tensor:
        """Ray parameters `[n]` at which rays from `origin [3]` along `directions [n, 3]` meet the ground, or inf."""
        down = directions[:, 2]
        return torch.where(down < -1e-6, -origin[2] / down.clamp(max=-1e-6), torch.inf)

    def look(self, xy: Tensor, along: Tensor, across_size: Tensor, along_size: Tensor, dither: Tensor) -> Tensor:
        """Colour and reflectivity `[n, 4]` (0-1) of places `xy [n, 2]`.

        A pixel covers `across_size` metres across the line of sight and `along_size` along it, whose direction on the
        ground is `along [n, 2]`: four samples follow it. `dither [n]` in [0, 1) blends neighbouring scales.
        """
        count = 4
        scale = torch.maximum(across_size, along_size / count)
        level = torch.floor(torch.log2((scale / _FINE).clamp(min=1.0)) + dither).to(torch.int8)
        for index, (bounds, _) in enumerate(self._levels[:2]):
            inside = (xy[:, 0] > bounds.x0 + 2) & (xy[:, 0] < bounds.x1 - 2)
            inside &= (xy[:, 1] > bounds.y0 + 2) & (xy[:, 1] < bounds.y1 - 2)
            level = torch.where(inside, level, level.clamp(min=index + 1))
        level = level.clamp(max=len(self._levels) - 1)
        result = torch.empty(xy.shape[0], 4, device=xy.device)
        for index, (bounds, picture) in enumerate(self._levels):
            chosen = (level == index).nonzero()[:, 0]
            if not len(chosen):
                continue
            size = (bounds.x1 - bounds.x0, bounds.y1 - bounds.y0)
            base_x = (xy[chosen, 0] - bounds.x0) * (2 / size[0]) - 1
            base_y = (xy[chosen, 1] - bounds.y0) * (2 / size[1]) - 1
            # Near the car a pixel's footprint is within the texel, and one sample does.
            taps = 1 if index == 0 else count
            steps = (torch.arange(taps, device=xy.device) - (taps - 1) / 2) / taps
            reach = along_size[chosen].clamp(max=30.0)
            shift_x, shift_y = along[chosen, 0] * reach * (2 / size[0]), along[chosen, 1] * reach * (2 / size[1])
            grid = torch.stack(
                (base_x[None] + steps[:, None] * shift_x[None], base_y[None] + steps[:, None] * shift_y[None]), dim=-1
            )
            seen = functional.grid_sample(picture, grid[None], padding_mode="border", align_corners=False)
            result[chosen] = seen[0].mean(dim=1).T
        cell = (xy * (1 / 0.025)).long() & 255
        grain = self._grain.view(-1)[cell[:, 1] * 256 + cell[:, 0]]
        fade = (0.06 / scale).clamp(max=1.0)
        result[:, :3] *= (1 + (grain - 1) * fade)[:, None]
        return result
