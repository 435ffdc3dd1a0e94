"""Furniture and buildings along the outline of an area."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import box

from bridgeta_synth.world.solids import FACADE, FENCE, HEDGE, LAMP, WALL
from bridgeta_synth.world.streets.shapes import (
    outlines,
)
from bridgeta_synth.world.town.buildings import add_buildings, add_enclosures
from bridgeta_synth.world.town.street_furniture import Furnisher


def test_furniture_follows_the_outline_of_any_area() -> None:
    """Furniture stands outside the outline, on ground of the given height."""
    area = box(0, 0, 120, 60)
    into = Furnisher(lambda xy: 5.0 + 0.05 * xy[..., 0], np.random.default_rng(3))
    add_buildings(into, outlines(area), area)
    add_enclosures(into, outlines(area), area)
    into.add_street_lamps(outlines(area), area)
    into.add_street_trees(outlines(area), area)
    into.add_small_objects(outlines(area), area)
    into.add_signal(3.0, -1.0, 0.0)
    solids, lamps = into.build()
    feet = shapely.polygons(solids.corners()[:, :4, :2])
    houses = solids.kind == FACADE
    assert houses.sum() > 8
    assert len(lamps)
    assert (shapely.area(shapely.intersection(feet[houses], area)) < 0.01).all()
    walls = np.isin(solids.kind, (WALL, HEDGE, FENCE))
    low = (5.0 + 0.05 * solids.corners()[walls, :4, 0]).min(axis=1)
    assert (solids.z[walls] <= low + 1e-6).all()
    # A signal's lamps are on its back: its front looks away from where it faces.
    signal = solids.take(solids.kind == LAMP)
    np.testing.assert_allclose(signal.axes[0, :2, 0], (-1.0, 0.0), atol=1e-9)
