"""Write the images of a map, the semantic prior and the base map, in strips of rows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from shapely.geometry import Polygon

from bridgeta_core.utils.arrays import Bytes
from bridgeta_synth.world.materials import ALBEDO_SCALE, GRASS, MATERIALS

PRIOR_STEP, BASEMAP_STEP = 0.1, 0.5
# Cities are kilometres wide and the prior has cells of 10 cm: it is never in memory as a whole.
_STRIP = 1024
# Points are rounded to this part of a pixel.
_FRACTION = 4


def write_prior(path: Path, shapes: Iterable[Polygon], canvas: tuple[float, float]) -> None:
    """Write the semantic prior that nuscenes-devkit's `MapMask` reads: 255 on the shapes, cells of 0.1 m, north up."""
    _write_layers(path, [(255, shape) for shape in shapes], canvas, PRIOR_STEP, np.uint8(0))


def write_basemap(path: Path, surface: list[tuple[int, Polygon]], canvas: tuple[float, float]) -> None:
    """Write the materials of the ground in their colours, pixels of 0.5 m, north up."""
    colours = [tuple(_to_display(material.albedo)) for material in MATERIALS]
    painted = [(colours[material], shape) for material, shape in surface]
    _write_layers(path, painted, canvas, BASEMAP_STEP, np.array(colours[GRASS], dtype=np.uint8))


def _to_display(albedo: tuple[float, float, float]) -> list[int]:
    """Convert a linear albedo to display RGB (0-255)."""
    return np.round(255 * (np.array(albedo) / ALBEDO_SCALE) ** (1 / 2.2)).astype(int).tolist()


def _write_layers(
    path: Path,
    painted: Sequence[tuple[int | tuple[int, ...], Polygon]],
    canvas: tuple[float, float],
    step: float,
    background: Bytes | np.uint8,
) -> None:
    columns, rows = (round(side / step) for side in canvas)
    # Pixel (0, 0) has its centre half a step inside the canvas's upper left corner.
    scale = np.array((1 / step, -1 / step))
    origin = np.array((-0.5, rows - 0.5))
    prepared = []
    for colour, shape in painted:
        rings = [np.asarray(r.coords)[:, :2] * scale + origin for r in (shape.exterior, *shape.interiors)]
        prepared.append((colour, rings, rings[0][:, 1].min(), rings[0][:, 1].max()))

    def draw_strips() -> Iterator[Bytes]:
        for first in range(0, rows, _STRIP):
            count = min(_STRIP, rows - first)
            image = np.empty((count, columns, *np.shape(background)), dtype=np.uint8)
            image[:] = background
            for colour, rings, low, high in prepared:
                if high < first - 1 or low > first + count:
                    continue
                moved = [np.round((ring - (0, first)) * 2**_FRACTION).astype(np.int32) for ring in rings]
                cv2.fillPoly(image, moved, colour, cv2.LINE_8, _FRACTION)
            yield image

    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, (columns, rows), np.ndim(background) > 0, draw_strips())


def write_png(path: Path, size: tuple[int, int], is_colour: bool, strips: Iterable[Bytes]) -> None:
    """Write a PNG of `size` (columns, rows) from strips of rows, uint8.

    Strips are grey `[n, columns]` or RGB `[n, columns, 3]`.
    """
    packer = zlib.compressobj(4)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2 if is_colour else 0, 0, 0, 0)))
        for strip in strips:
            # Every row begins with the number of its filter: 0, none.
            rows = np.pad(strip.reshape(len(strip), -1), ((0, 0), (1, 0)))
            file.write(chunk(b"IDAT", packer.compress(rows.tobytes())))
        file.write(chunk(b"IDAT", packer.flush()))
        file.write(chunk(b"IEND", b""))
