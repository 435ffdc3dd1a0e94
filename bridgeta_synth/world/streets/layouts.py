"""What distinguishes the towns of each split: layout statistics, street classes and colours.

They are chosen so that the map classes are about as frequent around an ego vehicle as in nuScenes. Around the lanes of
its mini scenes 23.1 % of the cells are drivable and 3.5 % divider; `python bench/class_frequencies.py --lanes ROOT`
prints these shares, and with `--towns 8` those of towns. Too little of the other layers is public to be measured.
These are assumptions: walkways about 10 % (some 3 m on either side of most roads, of 16 m each), crossings about 1 %
(3 by 12 m on most arms of junctions), stop lines about as many, car parks 1 to 4 % and in half of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bridgeta_synth.seeds import Seed
from bridgeta_synth.world.solids import Colour
from bridgeta_synth.world.streets.roads import Profile

STREET_CLASSES = ("lane", "one_way", "street", "collector", "avenue")


@dataclass(frozen=True)
class Layout:
    """Layout statistics of the towns of one split.

    block: usual area of a block, m2.
    slant: how far streets deviate from right angles where they meet, radians.
    crossings: how much a junction of four arms is preferred over two of three.
    swerve: strain of the map that bends the streets.
    thinned: share of roads left out.
    shares: share of the total length that belongs to each of `STREET_CLASSES`.
    parks, plazas, carparks: shares of the blocks.
    lots: chance of a car park per side of a road.
    """

    block: float
    slant: float
    crossings: float
    swerve: float
    thinned: float
    shares: tuple[float, ...]
    parks: float
    plazas: float
    carparks: float
    lots: float


LAYOUTS = (
    Layout(11000, 0.13, 0.15, 0.26, 0.12, (0.15, 0.06, 0.26, 0.31, 0.22), 0.14, 0.06, 0.09, 0.08),
    Layout(12500, 0.20, 0.08, 0.36, 0.18, (0.12, 0.08, 0.30, 0.26, 0.24), 0.20, 0.05, 0.07, 0.10),
    Layout(10000, 0.08, 0.22, 0.18, 0.06, (0.20, 0.08, 0.22, 0.30, 0.20), 0.10, 0.04, 0.08, 0.07),
)
"""The layouts of train, val and test."""


def split_index(seed: Seed) -> int:
    """Return the index of the split that a seed names: 0 train, 1 val, 2 test."""
    return seed[1] % len(LAYOUTS) if len(seed) > 1 else 0


def _lane(rng: np.random.Generator) -> Profile:
    """Draw a narrow street that two cars just pass; mostly without a centre line, so without a road divider."""
    width = float(rng.uniform(2.7, 3.0))
    return Profile(1, 1, width, centre_line=bool(rng.random() < 0.25), parking=0.45, walkway=0.75, verge=0.2)


def _one_way(rng: np.random.Generator) -> Profile:
    lanes = 2 if rng.random() < 0.7 else 3
    return Profile(lanes, 0, float(rng.uniform(3.0, 3.5)), parking=0.4, walkway=0.9, verge=0.2)


def _street(rng: np.random.Generator) -> Profile:
    width = float(rng.uniform(3.1, 3.7))
    return Profile(1, 1, width, centre_line=bool(rng.random() < 0.85), parking=0.35, walkway=0.85, verge=0.35)


def _collector(rng: np.random.Generator) -> Profile:
    ahead, back = ((2, 1), (1, 2), (2, 2), (2, 2))[int(rng.integers(4))]
    median = float(rng.uniform(1.4, 3.0)) if ahead == back and rng.random() < 0.25 else 0.0
    return Profile(ahead, back, float(rng.uniform(3.1, 3.5)), median, parking=0.2, walkway=0.9, verge=0.35)


def _avenue(rng: np.random.Generator) -> Profile:
    ahead, back = ((2, 2), (3, 2), (2, 3), (3, 3), (3, 3))[int(rng.integers(5))]
    median = float(rng.uniform(1.6, 4.5)) if rng.random() < 0.65 else 0.0
    return Profile(ahead, back, float(rng.uniform(3.1, 3.5)), median, parking=0.12, walkway=0.92, verge=0.5)


_DRAW: tuple[Callable[[np.random.Generator], Profile], ...] = (_lane, _one_way, _street, _collector, _avenue)


def draw_profile(street_class: int, rng: np.random.Generator) -> Profile:
    """Draw the profile of a street of a class, an index into `STREET_CLASSES`; widths in whole centimetres."""
    profile = _DRAW[street_class](rng)
    return replace(profile, lane_width=round(profile.lane_width, 2), median=round(profile.median, 2))


@dataclass(frozen=True)
class Palette:
    """The colours in a town, display values in [0, 1]; the towns of a split share a palette."""

    facades: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    walls: tuple[Colour, ...]
    fences: tuple[Colour, ...]
    leaves: tuple[Colour, ...]


_BRICK: tuple[Colour, ...] = ((0.62, 0.42, 0.33), (0.55, 0.36, 0.30), (0.66, 0.50, 0.40))
_PLASTER: tuple[Colour, ...] = ((0.80, 0.76, 0.66), (0.72, 0.68, 0.60), (0.78, 0.62, 0.50), (0.84, 0.82, 0.78))
_MODERN: tuple[Colour, ...] = ((0.55, 0.56, 0.58), (0.66, 0.70, 0.72), (0.42, 0.45, 0.50), (0.74, 0.75, 0.76))
_TROPIC: tuple[Colour, ...] = ((0.86, 0.84, 0.76), (0.70, 0.78, 0.74), (0.82, 0.70, 0.56), (0.62, 0.70, 0.78))
_WALLS: tuple[Colour, ...] = ((0.70, 0.68, 0.64), (0.58, 0.44, 0.37), (0.80, 0.79, 0.76), (0.50, 0.50, 0.49))
_FENCES: tuple[Colour, ...] = ((0.25, 0.27, 0.26), (0.46, 0.36, 0.26), (0.72, 0.72, 0.70), (0.20, 0.30, 0.24))

PALETTES = (
    Palette(
        _BRICK + _PLASTER + _MODERN[:2],
        ((0.46, 0.28, 0.22), (0.36, 0.35, 0.35), (0.30, 0.31, 0.33)),
        _WALLS,
        _FENCES,
        ((0.20, 0.33, 0.12), (0.26, 0.36, 0.14), (0.16, 0.28, 0.13)),
    ),
    Palette(
        _PLASTER + _MODERN + _TROPIC[:2],
        ((0.42, 0.26, 0.20), (0.52, 0.50, 0.47), (0.33, 0.34, 0.36)),
        _WALLS[1:],
        _FENCES,
        ((0.24, 0.35, 0.15), (0.18, 0.30, 0.16), (0.33, 0.36, 0.14)),
    ),
    Palette(
        _BRICK[1:] + _MODERN + _TROPIC,
        ((0.34, 0.26, 0.24), (0.44, 0.44, 0.45), (0.50, 0.36, 0.26)),
        _WALLS[:3],
        _FENCES[1:],
        ((0.17, 0.31, 0.14), (0.22, 0.38, 0.13), (0.28, 0.33, 0.17)),
    ),
)
"""The palettes of train, val and test."""
