"""Lanes of a road lie on their side between kerb and island."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_synth.world.streets.roads import Profile, Road


def straight_road(profile: Profile, driving_side: int = 1) -> Road:
    """A road of 100 m along x."""
    centre = np.stack((np.arange(101.0), np.zeros(101)), axis=1)
    return Road(0, 0, 1, centre, profile, driving_side, (20.0, 20.0))


def test_lanes_lie_side_by_side_between_the_kerb_and_the_island() -> None:
    road = straight_road(Profile(2, 1, 3.0, median=2.0))
    assert road.width == pytest.approx(3 * 3.0 + 2.0 + 2 * 0.3)
    # Traffic keeps right: ahead means y < 0.
    assert [road.lane(True, i)[0, 1] for i in (0, 1)] == pytest.approx([-5.8 + 0.3 + 1.5, -5.8 + 0.3 + 4.5])
    assert road.lane(False, 0)[0, 1] == pytest.approx(5.8 - 0.3 - 1.5)
    assert road.inner(False) - road.inner(True) == pytest.approx(2.0)
    assert road.lane(True, 0)[0, 0] == pytest.approx(20)
    assert road.lane(False, 0)[0, 0] == pytest.approx(80)


def test_traffic_keeps_to_its_side() -> None:
    for driving_side in (1, -1):
        road = straight_road(Profile(1, 1, 3.0), driving_side)
        assert driving_side * road.lane(True, 0)[0, 1] < 0 < driving_side * road.lane(False, 0)[0, 1]
