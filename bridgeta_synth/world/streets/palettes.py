"""The colours of what stands in a town; the towns of a split share a palette."""

from __future__ import annotations

from dataclasses import dataclass

from bridgeta_synth.world.solids import Colour


@dataclass(frozen=True)
class Palette:
    """Display colours in [0, 1]: of facades, roofs, garden walls, fences, and of leaves."""

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
"""The palettes of train, val and test, in the order of the split's index in a seed."""
