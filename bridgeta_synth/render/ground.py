"""The ground around a scene as an image at several scales: albedo, reflectivity and static light.

The ground is stored in square tiles of TILE pixels. Near the scene's path a pixel is 5 cm wide, further away 10 to 80
cm. Each scale is the mean of the next finer one, so distant paint fades instead of sparkling. A pixel holds eight
channels of 8 bits in one 64-bit number: three of albedo, reflectivity, and the four of `StaticLight`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.utils.arrays import Bytes, Floats, Ints
from bridgeta_synth.render.looks.paint import GroundPainter
from bridgeta_synth.render.static_light import StaticLight
from bridgeta_synth.world.materials import ALBEDO_SCALE

TILE = 256
STEPS = (0.05, 0.1, 0.2, 0.4, 0.8)
CELL = TILE * STEPS[0]
"""Side of the finest tiles in metres."""

_SPAN = TILE * STEPS[-1]
_NEAR, _MIDDLE = 28.0, 80.0
# A sheet is painted at once: a tile of the third scale at the step of the second, with a margin for its finer tiles.
_SHEET = TILE * STEPS[2]
_MARGIN = 8
_TAPS = 4
_EVEN_BYTES = 0x00FF00FF00FF00FF


@dataclass(eq=False)
class _Level:
    """Tiles of one scale: `table [rows, columns]` holds the first pixel of each tile in the pool, or -1."""

    step: float
    table: NDArray[np.int32]


class Ground:
    """The image of a scene's ground within `reach` metres of its `path [n, 2]`."""

    def __init__(
        self,
        paint: GroundPainter,
        light: StaticLight,
        path: Floats,
        device: torch.device,
        reach: float = 160.0,
    ) -> None:
        self._paint, self._light, self._path = paint, light, path
        self.low, self.high = find_extent(path, reach)
        self._pool: list[Ints] = []
        self._levels = []
        for step in STEPS:
            columns, rows = np.round((self.high - self.low) / (TILE * step)).astype(int)
            self._levels.append(_Level(step, np.full((rows, columns), -1, dtype=np.int32)))
        blank = _pack(np.full((TILE, TILE, 4), 40, dtype=np.uint8), np.full((TILE, TILE, 4), 255, dtype=np.uint8))
        for level in self._levels[3:]:
            for row, column in np.ndindex(level.table.shape):
                self._store(level, row, column, blank.copy())
        self._fill(reach)
        self._finest = torch.from_numpy(self._find_finest_scales()).to(device)
        self._tables = [torch.from_numpy(level.table).to(device) for level in self._levels]
        self._pixels = torch.from_numpy(np.concatenate(self._pool)).to(device)
        self._pool.clear()

    def _store(self, level: _Level, row: int, column: int, tile: Ints) -> None:
        level.table[row, column] = len(self._pool) * TILE * TILE
        self._pool.append(tile.reshape(-1))

    def _distance_to_path(self, corner: Floats, side: float) -> float:
        """Measure the distance in metres from a square to the path."""
        beyond = np.maximum(np.maximum(corner - self._path, self._path - corner - side), 0)
        return float(np.hypot(beyond[:, 0], beyond[:, 1]).min())

    def _fill(self, reach: float) -> None:
        rows, columns = self._levels[2].table.shape
        for row, column in np.ndindex(rows, columns):
            corner = self.low + _SHEET * np.array((column, row))
            if self._distance_to_path(corner, _SHEET) < reach:
                self._paint_sheet(row, column, corner)

    def _paint_sheet(self, row: int, column: int, corner: Floats) -> None:
        """Paint one tile of the third scale, the finer tiles within it, and its share of the coarser ones."""
        step = STEPS[1]
        size = 2 * TILE
        wide = self._light.draw_tile(corner - _MARGIN * step, step, size + 2 * _MARGIN)
        inner = slice(_MARGIN, _MARGIN + size)
        surface = self._paint.draw_tile(corner, step, size)
        light = wide[inner, inner].copy()
        light[..., 3] = cv2.min(light[..., 3], surface.shine)
        for i, j in np.ndindex(2, 2):
            at = corner + np.array((j, i)) * TILE * step
            if self._distance_to_path(at, TILE * step) < _MIDDLE:
                part = np.s_[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE]
                self._store(self._levels[1], 2 * row + i, 2 * column + j, _pack(surface.look[part], light[part]))
        fine = size // 4
        for i, j in np.ndindex(4, 4):
            at = corner + np.array((j, i)) * CELL
            if self._distance_to_path(at, CELL) < _NEAR:
                part = np.s_[i * fine : (i + 1) * fine + 2 * _MARGIN, j * fine : (j + 1) * fine + 2 * _MARGIN]
                self._paint_finest(4 * row + i, 4 * column + j, at, np.ascontiguousarray(wide[part]))
        look, shown = _halve(surface.look), _halve(light)
        self._store(self._levels[2], row, column, _pack(look, shown))
        for index in (3, 4):
            look, shown = _halve(look), _halve(shown)
            fold = 1 << (index - 2)
            side = TILE // fold
            level = self._levels[index]
            start = level.table[row // fold, column // fold]
            tile = self._pool[start // (TILE * TILE)].reshape(TILE, TILE)
            v, u = row % fold * side, column % fold * side
            tile[v : v + side, u : u + side] = _pack(look, shown)

    def _paint_finest(self, row: int, column: int, corner: Floats, light: Bytes) -> None:
        surface = self._paint.draw_tile(corner, STEPS[0], TILE)
        doubled = cv2.resize(light, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        inner = slice(2 * _MARGIN, 2 * _MARGIN + TILE)
        doubled = doubled[inner, inner].copy()
        doubled[..., 3] = cv2.min(doubled[..., 3], surface.shine)
        self._store(self._levels[0], row, column, _pack(surface.look, doubled))

    def _find_finest_scales(self) -> Bytes:
        """Find the finest scale available in every cell of CELL metres, `[rows, columns]`."""
        rows, columns = self._levels[0].table.shape
        finest = np.full((rows, columns), 3, dtype=np.uint8)
        for index in (2, 1):
            exists = np.repeat(np.repeat(self._levels[index].table >= 0, 1 << index, axis=0), 1 << index, axis=1)
            finest[exists[:rows, :columns]] = index
        # The finest scale is read with its neighbours, so these must exist too.
        exists = (self._levels[0].table >= 0).astype(np.uint8)
        finest[cv2.erode(exists, np.ones((3, 3), np.uint8), borderValue=0) > 0] = 0
        return finest

    def look_up(self, x: Tensor, y: Tensor, along: Tensor, across_size: Tensor, dither: Tensor) -> Tensor:
        """Look up albedo, reflectivity and light at places x, y `[n]`: `[8, n]` in [0, 1], channel by channel.

        A pixel covers `across_size [n]` metres across the line of sight and the stretch `along [2, n]` of ground along
        it, which several samples follow. `dither [n]` in [0, 1) blends neighbouring scales and jitters the samples
        within their texels.
        """
        x = (x - float(self.low[0])).clamp(0.5, float(self.high[0] - self.low[0]) - 0.5)
        y = (y - float(self.low[1])).clamp(0.5, float(self.high[1] - self.low[1]) - 0.5)
        along_size = (along[0] * along[0] + along[1] * along[1]).sqrt()
        cell = (y * (1 / CELL)).int() * self._finest.shape[1] + (x * (1 / CELL)).int()
        finest = self._finest.view(-1).index_select(0, cell)
        scale = torch.maximum(across_size, along_size * (1 / _TAPS)) * (1 / STEPS[0])
        level = (torch.log2(scale.clamp(min=1.0)) + dither).int().clamp(max=len(STEPS) - 1)
        level = torch.maximum(level, finest.int())
        result = torch.empty(8, len(x), device=x.device)
        for index in range(len(STEPS)):
            chosen = (level == index).nonzero()[:, 0]
            if not len(chosen):
                continue
            u, v = x.index_select(0, chosen), y.index_select(0, chosen)
            if index == 0:
                seen = self._interpolate(u, v)
            else:
                way = along[0].index_select(0, chosen), along[1].index_select(0, chosen)
                seen = self._average_along(index, u, v, way, dither.index_select(0, chosen))
            result[:, chosen] = seen
        result[:3] *= ALBEDO_SCALE
        return result

    def _find_pixels(self, level: int, u: Tensor, v: Tensor) -> Tensor:
        """Find the places in the pool `[n]` int32 of pixels (u, v) of a scale, whole numbers as int32."""
        table = self._tables[level]
        tile = (v >> 8) * table.shape[1] + (u >> 8)
        return table.view(-1).index_select(0, tile) + ((v & 255) << 8) + (u & 255)

    def _interpolate(self, x: Tensor, y: Tensor) -> Tensor:
        """Interpolate the finest scale bilinearly, `[8, n]`."""
        u, v = x * (1 / STEPS[0]) - 0.5, y * (1 / STEPS[0]) - 0.5
        column, row = u.int(), v.int()
        u, v = u - column, v - row
        result = torch.zeros(8, len(x), device=x.device)
        for i, j, weight in ((0, 0, (1 - u) * (1 - v)), (0, 1, u * (1 - v)), (1, 0, (1 - u) * v), (1, 1, u * v)):
            corner = self._pixels.index_select(0, self._find_pixels(0, column + j, row + i))
            result.addcmul_(corner.view(torch.uint8).view(-1, 8).T, weight, value=1 / 255)
        return result

    def _average_along(self, index: int, x: Tensor, y: Tensor, way: tuple[Tensor, Tensor], dither: Tensor) -> Tensor:
        """Average samples of a scale along `way` (x and y, `[n]` metres each) around places x, y: `[8, n]`."""
        step = STEPS[index]
        rows, columns = self._tables[index].shape
        even = odd = None
        wx, wy = way
        fine = dither * 16
        fine = fine - fine.floor()
        for tap in range(_TAPS):
            share = (tap + fine) / _TAPS - 0.5
            # Neighbouring samples are jittered to opposite sides.
            shake = (fine if tap % 2 else 1 - fine) - 0.5
            u = ((x + share * wx) * (1 / step) + shake).int().clamp(0, columns * TILE - 1)
            v = ((y + share * wy) * (1 / step) - shake).int().clamp(0, rows * TILE - 1)
            pixel = self._pixels.index_select(0, self._find_pixels(index, u, v))
            # With every other byte cleared, the sums of several bytes fit into 16 bits.
            low, high = pixel & _EVEN_BYTES, (pixel >> 8) & _EVEN_BYTES
            even = low if even is None else even.add_(low)
            odd = high if odd is None else odd.add_(high)
        assert even is not None
        assert odd is not None
        result = torch.empty(8, len(x), device=x.device)
        result[0::2] = even.view(torch.int16).view(-1, 4).T
        result[1::2] = odd.view(torch.int16).view(-1, 4).T
        return result.mul_(1 / (255 * _TAPS))


def find_extent(path: Floats, reach: float) -> tuple[Floats, Floats]:
    """Find the rectangle (low, high) of ground to keep around a path: whole tiles of the coarsest scale."""
    low = np.floor((path.min(axis=0) - reach) / _SHEET) * _SHEET
    count = np.ceil((path.max(axis=0) + reach - low) / _SPAN)
    return low, low + count * _SPAN


def _halve(image: Bytes) -> Bytes:
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _pack(look: Bytes, light: Bytes) -> Ints:
    """Pack the eight channels of two images `[h, w, 4]` into one number per pixel `[h, w]`."""
    both = np.empty((*look.shape[:2], 2), dtype=np.uint32)
    both[..., 0], both[..., 1] = look.view(np.uint32)[..., 0], light.view(np.uint32)[..., 0]
    return both.view(np.int64)[..., 0]
