"""Procedural noise and edges for painting surfaces on any device, from one fixed table of normal deviates."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_SIDE = 512


@lru_cache(maxsize=4)
def _table(device: torch.device) -> Tensor:
    deviates = np.random.default_rng(5).standard_normal(_SIDE * _SIDE, dtype=np.float32)
    return torch.from_numpy(deviates).to(device)


def hash_normal(number: Tensor) -> Tensor:
    """Map every whole number `[n]` (int32) to a normal deviate; equal numbers have equal deviates."""
    return _table(number.device).index_select(0, (number * 7919) & (_SIDE * _SIDE - 1))


def value_noise(x: Tensor, y: Tensor) -> Tensor:
    """Compute value noise `[n]` with cells of 1 at places x, y `[n]`: zero mean, a deviation of about 0.6."""
    fx, fy = x.floor(), y.floor()
    u, v = x - fx, y - fy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    ix, iy = fx.int() & (_SIDE - 1), fy.int() & (_SIDE - 1)
    jx, jy = (ix + 1) & (_SIDE - 1), ((iy + 1) & (_SIDE - 1)) * _SIDE
    iy = iy * _SIDE
    table = _table(x.device)
    low = torch.lerp(table.index_select(0, iy + ix), table.index_select(0, iy + jx), u)
    high = torch.lerp(table.index_select(0, jy + ix), table.index_select(0, jy + jx), u)
    return torch.lerp(low, high, v)


def speckle(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Look up a normal deviate `[n]` for every cube of side 1 that places lie in."""
    return hash_normal(x.floor().int() * 7333 + y.floor().int() * 1931 + z.floor().int() * 433)


def edge(inside: Tensor, footprint: Tensor) -> Tensor:
    """Compute the coverage of a pixel of size `footprint` whose centre lies `inside` metres within an edge."""
    return (inside / footprint + 0.5).clamp_(0.0, 1.0)


def band(place: Tensor, centre: float | Tensor, half: float | Tensor, footprint: Tensor) -> Tensor:
    """Compute the coverage of a pixel by the band of `half` metres to both sides of `centre`."""
    return edge(half - (place - centre).abs(), footprint)


def luminance(colour: Tensor) -> Tensor:
    """Compute the luminance `[n]` of linear colours `[3, n]` (Rec. 709)."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def desaturate(colour: Tensor, share: float) -> Tensor:
    """Pull colours `[3, n]` to the grey of their luminance by a share."""
    return colour + share * (luminance(colour) - colour)


def to_planes(colour: tuple[float, float, float], device: torch.device) -> Tensor:
    """Convert a colour to planes `[3, 1]` on a device."""
    return torch.tensor(colour, device=device)[:, None]


def tint(colour: Tensor, cover: Tensor, over: tuple[float, float, float] | Tensor) -> Tensor:
    """Cover colours `[3, n]` by another, one colour or `[3, n]`, to a share `cover [n]`."""
    if isinstance(over, tuple):
        over = to_planes(over, colour.device)
    return colour + cover * (over - colour)
