"""Materials of the ground: numbers, colours and LiDAR reflectivity; and the reflectivity of solids.

Colours are linear albedos (0: black, 1: white), as measured for dry surfaces; `linear` converts display colours to
them. Reflectivity is the HDL-32E's scale: 0-100 for diffuse surfaces, up to 255 for retroreflectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import Floats, Ints

GRASS, DIRT, CONCRETE, PAVING, KERB, ASPHALT, PATCH, CARPARK, WHITE, YELLOW, ZEBRA = range(11)
# Worn paint; dark joints, skid marks and removed paint, which look like lines and are in no map.
WHITE_WORN, YELLOW_WORN, ZEBRA_WORN, SEAM, TYRE, REMOVED_PAINT = range(11, 17)
GRAVEL, COBBLE, ASPHALT_OLD = range(17, 20)
# Painted kerbs, brick paving, iron covers, planted beds and cracks.
KERB_WHITE, KERB_BLACK, KERB_YELLOW, BRICK, IRON, BED, CRACK = range(20, 27)

ALBEDO_SCALE = 0.85
"""The albedo of a stored value of 255."""


class Material(NamedTuple):
    """Linear albedo, the share by which it varies from place to place, and the LiDAR reflectivity (0-255)."""

    albedo: tuple[float, float, float]
    spread: float
    reflectivity: float


MATERIALS: tuple[Material, ...] = (
    Material((0.072, 0.090, 0.036), 0.40, 24),  # grass
    Material((0.200, 0.155, 0.105), 0.25, 22),  # dirt
    Material((0.265, 0.256, 0.235), 0.12, 26),  # concrete
    Material((0.285, 0.264, 0.240), 0.14, 28),  # paving
    Material((0.330, 0.322, 0.305), 0.10, 34),  # kerb
    Material((0.115, 0.115, 0.117), 0.16, 10),  # asphalt
    Material((0.068, 0.068, 0.071), 0.14, 7),  # patch
    Material((0.140, 0.138, 0.135), 0.18, 12),  # car park
    Material((0.620, 0.620, 0.600), 0.08, 90),  # white
    Material((0.560, 0.360, 0.050), 0.08, 80),  # yellow
    Material((0.610, 0.610, 0.590), 0.08, 90),  # zebra
    Material((0.560, 0.560, 0.540), 0.10, 60),  # worn white
    Material((0.500, 0.340, 0.080), 0.10, 55),  # worn yellow
    Material((0.560, 0.560, 0.540), 0.10, 60),  # worn zebra
    Material((0.030, 0.030, 0.032), 0.10, 4),  # seam
    Material((0.035, 0.035, 0.036), 0.10, 6),  # tyre mark
    Material((0.330, 0.325, 0.310), 0.10, 20),  # removed paint
    Material((0.260, 0.240, 0.205), 0.35, 20),  # gravel
    Material((0.210, 0.195, 0.180), 0.20, 22),  # cobble
    Material((0.190, 0.187, 0.180), 0.16, 14),  # old asphalt
    Material((0.580, 0.580, 0.560), 0.10, 70),  # white kerb
    Material((0.040, 0.040, 0.042), 0.20, 8),  # black kerb
    Material((0.540, 0.350, 0.060), 0.10, 70),  # yellow kerb
    Material((0.230, 0.120, 0.085), 0.20, 24),  # brick
    Material((0.075, 0.072, 0.070), 0.12, 12),  # iron
    Material((0.060, 0.075, 0.030), 0.45, 22),  # bed
    Material((0.035, 0.034, 0.034), 0.10, 5),  # crack
)

MARKS = frozenset(
    (WHITE, YELLOW, ZEBRA, WHITE_WORN, YELLOW_WORN, ZEBRA_WORN, SEAM, TYRE, REMOVED_PAINT, CRACK),
)
"""Thin layers on another material, which shows where they are worn."""

ROUGH = frozenset((GRASS, DIRT, GRAVEL, BED))
"""Materials that absorb water: they neither shine nor hold puddles."""

# Reflectivity of solids by kind, in the order of the kinds in `solids`. Signs, cones and barriers are retroreflective.
_FACADE_TO_CARGO = (28, 18, 35, 20, 4, 14, 22, 18, 20, 35, 40, 12, 45)
_WALL_TO_FENCE = (26, 16, 210, 120, 90, 24, 18, 20, 22)
_SOLIDS = np.array(_FACADE_TO_CARGO + _WALL_TO_FENCE, dtype=np.float32)


def linear(display: Floats) -> Floats:
    """Convert display values in [0, 1] to linear ones (a gamma of 2.2)."""
    return np.power(np.clip(display, 0.0, None), 2.2)


def lidar_reflectivity(kinds: Ints) -> NDArray[np.float32]:
    """Look up the reflectivity (0-255) `[n]` of solids of `kinds [n]`."""
    return _SOLIDS[kinds]
