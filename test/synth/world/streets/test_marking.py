"""Lines and symbols painted on roads."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_synth.world import materials
from bridgeta_synth.world.streets.marking import DASHED, DOUBLE, SOLID, Marks, arrow, bicycle, place_symbol


def test_lines_are_painted_in_their_styles() -> None:
    points = np.stack((np.arange(0.0, 31.0), np.zeros(31)), axis=1)
    expected = {SOLID: 30.0, DOUBLE: 60.0, DASHED: 4 * 3.0}
    for style, length in expected.items():
        marks = Marks(np.random.default_rng(0))
        marks.paint(points, style, materials.WHITE, 0.0, 0.1)
        built = marks.build()
        assert {material for material, _ in built} == {materials.WHITE}
        assert sum(shape.area for _, shape in built) == pytest.approx(0.1 * length, rel=1e-6)
    worn = Marks(np.random.default_rng(0))
    worn.paint(points, SOLID, materials.YELLOW, 1.0)
    assert {material for material, _ in worn.build()} == {materials.YELLOW_WORN}


def test_symbols_point_along_the_lane() -> None:
    left, right = arrow(frozenset({"left"})), arrow(frozenset({"right"}))
    assert left.centroid.y > 0 > right.centroid.y
    assert arrow(frozenset({"straight"})).bounds[2] > 1.9
    turned = place_symbol(left, 10.0, 5.0, np.pi)
    assert turned.centroid.y < 5
    assert turned.area == pytest.approx(left.area)
    assert all(piece.is_valid for piece in bicycle())
