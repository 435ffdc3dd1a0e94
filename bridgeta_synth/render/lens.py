"""What lies between a scene and the sensor: glare in the lens, drops on its glass, and rain falling before it.

Images are linear planes `[3, h, w]`. Wide blurs are computed on a reduced image `[3, h / 8, w / 8]`.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bridgeta_synth.world.camera_look import Drops

REDUCTION = 8
_STREAK_TILE = 512


def shrink(image: Tensor) -> Tensor:
    """Shrink an image to an eighth of its size, `[3, h / 8, w / 8]`, by averaging."""
    return functional.avg_pool2d(image[None], REDUCTION, ceil_mode=True, count_include_pad=False)[0]


def spread_glare(small: Tensor, height: int, width: int) -> Tensor:
    """Compute the light scattered in the lens, `[3, h, w]`: the image spread by a core and a wide skirt.

    The total light stays the same, so a share of the result can replace the same share of the image.
    """
    narrow = _blur(small, 1, 2)
    wide = _blur(narrow, max(2, small.shape[2] // 16), 2)
    return enlarge(0.65 * narrow + 0.35 * wide, REDUCTION, height, width)


def enlarge(image: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Enlarge an image `[..., rows, columns]` by `factor`, bilinearly, and cut it to `[..., height, width]`.

    Unlike torch's own function, it gives equal numbers on any number of threads.
    """

    def between(size: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        place = ((torch.arange(size, device=image.device) + 0.5) / factor - 0.5).clamp(0, count - 1)
        first = place.long()
        return first, (first + 1).clamp(max=count - 1), place - first

    left, right, across = between(width, image.shape[-1])
    top, bottom, down = between(height, image.shape[-2])
    wide = torch.lerp(image.index_select(-1, left), image.index_select(-1, right), across)
    return torch.lerp(wide.index_select(-2, top), wide.index_select(-2, bottom), down[:, None])


def _blur(image: Tensor, radius: int, times: int) -> Tensor:
    """Apply `times` box blurs of `radius` pixels; values at the border extend beyond it."""
    size = 2 * radius + 1
    for _ in range(times):
        padded = functional.pad(image[None], (radius, radius, radius, radius), mode="replicate")
        image = functional.avg_pool2d(padded, size, stride=1)[0]
    return image


def add_drops(image: Tensor, small: Tensor, drops: Drops) -> None:
    """Draw drops on the glass into an image `[3, h, w]`, in place: discs that show the scene upside down and blurred.

    `drops`: centres x, y and radii as shares of the image's width.
    """
    if not drops:
        return
    height, width = image.shape[1:]
    pixels, source, cover = _prepare_drops(drops, height, width, image.device)
    planes, coarse = image.view(3, -1), small.reshape(3, -1)
    rows, columns = small.shape[1:]
    u, v = source[0].clamp(0, columns - 1.001), source[1].clamp(0, rows - 1.001)
    column, row = u.int(), v.int()
    u, v = u - column, v - row
    corner = row * columns + column
    for plane, flat in zip(planes, coarse, strict=True):
        seen = [flat.index_select(0, corner + step) for step in (0, 1, columns, columns + 1)]
        low, high = torch.lerp(seen[0], seen[1], u), torch.lerp(seen[2], seen[3], u)
        behind = plane.index_select(0, pixels)
        plane[pixels] = torch.lerp(behind, torch.lerp(low, high, v) * cover[1], cover[0])


@lru_cache(maxsize=32)
def _prepare_drops(drops: Drops, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Prepare all pixels under drops: their indices `[n]`, where they look in the reduced image (x, y) `[2, n]`, and
    their coverage and brightness `[2, n]`.
    """
    cover = np.zeros((height, width), dtype=np.float32)
    bright = np.ones((height, width), dtype=np.float32)
    look_x, look_y = np.zeros((2, height, width), dtype=np.float32)
    for x, y, radius in drops:
        cx, cy, r = x * width, y * width, max(radius * width, 1.5)
        x0, x1 = int(max(cx - r, 0)), int(min(cx + r + 2, width))
        y0, y1 = int(max(cy - r, 0)), int(min(cy + r + 2, height))
        if x0 >= x1 or y0 >= y1:
            continue
        v, u = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        across, down = (u - cx) / r, (v - cy) / r
        out = np.sqrt(across**2 + (0.9 * down) ** 2)
        here = np.clip((1 - out) / 0.35, 0, 1)
        here = 0.9 * here * here * (3 - 2 * here)
        stronger = here > cover[y0:y1, x0:x1]
        for target, value in (
            (cover, here),
            # A drop bends the sky down: its rim is darker below and lighter above.
            (bright, 1.0 + 0.12 * down - 0.25 * np.clip(out - 0.6, 0, 1)),
            # A drop is a small strong lens: it shows about a third of the view, upside down.
            (look_x, cx - across * 0.16 * width),
            (look_y, cy - down * 0.16 * width),
        ):
            part = target[y0:y1, x0:x1]
            part[stronger] = value[stronger]
    pixels = np.flatnonzero(cover > 0.004)
    source = np.stack((look_x, look_y)).reshape(2, -1)[:, pixels] / REDUCTION - 0.5
    shares = np.stack((cover, bright)).reshape(2, -1)[:, pixels]
    return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (pixels, source, shares))  # type: ignore[return-value]


def add_streaks(image: Tensor, strength: float, brightness: Tensor, offset: tuple[int, int]) -> None:
    """Draw falling drops into an image `[3, h, w]`, in place: faint streaks of `brightness [3]`."""
    height, width = image.shape[1:]
    tile = _make_streaks(image.device)
    rows = (torch.arange(height, device=image.device) + offset[0]) % _STREAK_TILE
    columns = (torch.arange(width, device=image.device) + offset[1]) % _STREAK_TILE
    cover = tile.index_select(0, rows).index_select(1, columns) * strength
    for plane, value in zip(image, brightness, strict=True):
        plane += cover * (value - plane)


@lru_cache(maxsize=4)
def _make_streaks(device: torch.device) -> Tensor:
    """Draw a tile of streaks `[tile, tile]`, coverage in [0, 1], that repeats without seams."""
    rng = np.random.default_rng(2)
    size = _STREAK_TILE
    tile = np.zeros((size, size), dtype=np.float32)
    for _ in range(900):
        x, y = rng.uniform(0, size, 2)
        length, weight = rng.uniform(8, 46), float(rng.uniform(0.15, 1.0))
        lean = rng.normal(0.06, 0.03) * length
        for shift_x in (-size, 0, size):
            for shift_y in (-size, 0):
                ends = np.array(((x + shift_x, y + shift_y), (x + shift_x + lean, y + shift_y + length)))
                (x0, y0), (x1, y1) = np.round(ends * 16).astype(int)
                cv2.line(tile, (x0, y0), (x1, y1), weight, 1, cv2.LINE_8, 4)
    tile = cv2.GaussianBlur(np.pad(tile, 8, mode="wrap"), (0, 0), 0.8)[8:-8, 8:-8]
    return torch.from_numpy(np.ascontiguousarray(np.clip(tile, 0, 1))).to(device)
