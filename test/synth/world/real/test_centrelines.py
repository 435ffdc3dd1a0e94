"""Lane outlines become strips, whatever their shape and wherever their ring starts."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Polygon

from bridgeta_synth.world.real.centrelines import find_strip
from bridgeta_synth.world.streets.shapes import arc_length, offset


def arc(radius: float, turn: float, heading: float, start: tuple[float, float]) -> np.ndarray:
    """A circular arc by its closed form: `turn` radians to the left (negative: to the right) over radius * |turn|."""
    angle = np.linspace(0, turn, max(3, int(radius * abs(turn))))
    local = radius * np.stack((np.sin(np.abs(angle)), np.sign(turn) * (1 - np.cos(angle))), axis=1)
    rotation = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
    return np.array(start) + local @ rotation.T


def band(centre: np.ndarray, width: float, first: int = 0, clockwise: bool = False) -> Polygon:
    ring = np.concatenate((offset(centre, width / 2), offset(centre, -width / 2)[::-1]))
    ring = np.roll(ring, first, axis=0)
    return Polygon(ring[::-1] if clockwise else ring)


@settings(max_examples=60)
@given(
    radius=st.floats(15, 400),
    turn=st.floats(-1.6, 1.6).filter(lambda t: abs(t) > 0.05),
    heading=st.floats(-3, 3),
    width=st.floats(2.6, 5.0),
    first=st.integers(0, 400),
    clockwise=st.booleans(),
)
def test_the_centre_line_of_a_curved_band_is_its_centre(
    radius: float, turn: float, heading: float, width: float, first: int, clockwise: bool
) -> None:
    centre = arc(radius, turn, heading, (500.0, 300.0))
    if arc_length(centre)[-1] < 2 * width:
        return
    strip = find_strip(band(centre, width, first, clockwise))
    assert strip is not None
    assert LineString(strip.centre).hausdorff_distance(LineString(centre)) < 0.35
    assert strip.width == pytest.approx(width, rel=0.05)


def test_left_is_left_and_right_is_right() -> None:
    strip = find_strip(Polygon([(0, 0), (40, 0), (40, 3.5), (0, 3.5)]))
    assert strip is not None
    way = strip.centre[-1] - strip.centre[0]
    to_left = strip.left.mean(axis=0) - strip.centre.mean(axis=0)
    assert way[0] * to_left[1] - way[1] * to_left[0] > 0


def test_a_reversed_strip_is_the_same_lane() -> None:
    strip = find_strip(Polygon([(0, 0), (40, 0), (40, 3.5), (0, 3.5)]))
    assert strip is not None
    turned = strip.reversed()
    np.testing.assert_array_equal(turned.centre, strip.centre[::-1])
    np.testing.assert_array_equal(turned.left, strip.right[::-1])
    np.testing.assert_allclose(turned.entering, -strip.leaving)
    assert shapely.equals(turned.outline.normalize(), strip.outline.normalize())


def test_a_lane_wider_than_long_runs_along_its_divider() -> None:
    short = Polygon([(0, 0), (2.5, 0), (2.5, 4.0), (0, 4.0)])
    strip = find_strip(short, LineString([(-10, 4.0), (10, 4.0)]))
    assert strip is not None
    np.testing.assert_allclose(abs(strip.leaving), (1, 0), atol=1e-6)
    assert strip.width == pytest.approx(4.0)


def test_a_lane_that_widens_keeps_its_ends() -> None:
    strip = find_strip(Polygon([(0, 0), (60, -2), (60, 4), (0, 3)]))
    assert strip is not None
    ends = {tuple(np.round(strip.centre[0], 6)), tuple(np.round(strip.centre[-1], 6))}
    assert ends == {(0.0, 1.5), (60.0, 1.0)}


@pytest.mark.parametrize(
    "outline", [Polygon([(0, 0), (30, 0), (0, 20)]), Polygon([(0, 0), (30, 0.05), (60, 0), (30, -0.05)])]
)
def test_an_outline_without_two_ends_is_no_lane(outline: Polygon) -> None:
    assert find_strip(outline) is None
