"""Textures of the ground: noise that tiles, and patterns of stones, slabs and cracks.

Values are 8 bits wide: 128 is the mean and SIGMA one standard deviation. Noise repeats every PERIOD metres, which is a
whole number of tiles of every scale at which the ground is painted; patterns repeat every PATTERN metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_synth.seeds import Seed
from bridgeta_synth.world import materials

SIGMA = 40.0
FINE = 0.05
PERIOD = 102.4
PATTERN = 25.6


def octaves(rng: np.random.Generator, size: int, cells: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise `[size, size]` with zero mean and unit deviation that tiles without seams."""
    total = np.zeros((size, size), dtype=np.float32)
    for count in cells:
        small = rng.standard_normal((count, count), dtype=np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = size // count
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += large[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
    return (total - total.mean()) / total.std()


def coded(field: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A field of zero mean and unit deviation as 8 bits."""
    return np.clip(np.round(128 + SIGMA * field), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Textures:
    """Noise at 5 cm and 10 cm: `grain` of the materials and `wear` of the paint, `[size, size]` each and keyed by step;
    `pools`: where water stays, at 40 cm; `patterns` of materials that have one, at 5 cm.
    """

    grain: dict[float, NDArray[np.uint8]]
    wear: dict[float, NDArray[np.uint8]]
    pools: NDArray[np.uint8]
    patterns: dict[int, NDArray[np.uint8]]


@lru_cache(maxsize=4)
def textures(seed: Seed) -> Textures:
    """The textures of a seed."""
    rng = np.random.default_rng([*seed, 3])
    size = round(PERIOD / FINE)
    half = size // 2
    # From patches of several metres, where the surface has aged differently, to the stones in the asphalt.
    coarse = octaves(rng, half, (16, 64, 256, 512))
    grain = 0.75 * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_NEAREST)
    grain += 0.66 * rng.standard_normal((size, size), dtype=np.float32)
    worn = octaves(rng, half, (32, 128, 256, 512))
    wear = {FINE: coded(cv2.resize(worn, (size, size), interpolation=cv2.INTER_LINEAR)), 2 * FINE: coded(worn)}
    pools = coded(octaves(rng, half // 4, (8, 16, 64)))
    return Textures({FINE: coded(grain), 2 * FINE: coded(coarse)}, wear, pools, _patterns(rng))


def _patterns(rng: np.random.Generator) -> dict[int, NDArray[np.uint8]]:
    slabs = _stones(rng, (64, 64), 0, 0.5, -2.2)
    # Cracks run where a smooth field changes its sign.
    cracks = np.abs(octaves(rng, 512, (8, 32))) < 0.018
    cracked = 0.9 * octaves(rng, 512, (16, 64, 256, 512))
    cracked[cracks & (octaves(rng, 512, (8,)) > 0.2)] = -3.0
    return {
        materials.CONCRETE: coded(slabs + 0.4 * octaves(rng, 512, (16, 64, 512))),
        materials.PAVING: coded(_stones(rng, (8, 8), 0, 0.7, -1.6) + 0.4 * octaves(rng, 512, (16, 128, 512))),
        materials.BRICK: coded(_stones(rng, (2, 4), 2, 1.0, 0.0)),
        materials.COBBLE: coded(_stones(rng, (4, 4), 2, 1.0, -1.0)),
        materials.ASPHALT_OLD: coded(cracked),
    }


def _stones(
    rng: np.random.Generator, stone: tuple[int, int], shift: int, spread: float, joint: float
) -> NDArray[np.float32]:
    """A bond of stones (rows, columns in pixels of 5 cm), every other course moved by `shift`: each stone has a tone
    of its own, the joints have the value `joint` (0: too thin to be seen).
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
