from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.expansion import LAYERS
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import rigid, transform
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-15, 15, -10, 10, 0.5)
SQUARE = BevGrid(-15, 15, -15, 15, 0.5)
SEED, OFFSET, HEADING = st.integers(0, 3), st.floats(-20, 20), st.floats(-math.pi, math.pi)


def pose(x=0.0, y=0.0, heading=0.0):
    return rigid((x, y, 0), (math.cos(heading / 2), 0, 0, math.sin(heading / 2)))


def exact(line_width=1.0, **shapes):
    """A map that has the shapes given by layer."""
    by_layer = {name: np.array(shapes.get(name, []), dtype=object) for name in LAYERS}
    return MapRaster("nowhere", by_layer, LabelConfig(mode="exact", line_width=line_width))


def area(rng, centre, radius, corners=11):
    """A polygon around a centre with two holes, edges in any direction, hardly ever convex."""

    def ring(middle, reach, n):
        angles = (np.arange(n) + rng.uniform(-0.4, 0.4, n)) * 2 * np.pi / n
        return middle + (reach * rng.uniform(0.5, 1, n))[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    holes = [ring(centre + side * np.array([0.2 * radius, 0]), 0.15 * radius, 5) for side in (-1, 1)]
    return shapely.Polygon(ring(centre, radius, corners), holes)


PLACE = np.array([1310.7, 905.3])


@cache
def random_raster(seed):
    """Overlapping areas and lines within about 30 m of PLACE, and the map that has them."""
    rng = np.random.default_rng(seed)
    shapes = {}
    for name in LAYERS:
        if "divider" in name:
            starts = PLACE + rng.uniform(-15, 15, (5, 1, 2))
            steps = np.cumsum(rng.uniform(2, 8, (5, 5, 1)) * rng.normal(0, 1, (5, 5, 2)), axis=1)
            shapes[name] = [shapely.LineString(line) for line in np.concatenate([starts, starts + steps], axis=1)]
        else:
            shapes[name] = [area(rng, PLACE + rng.uniform(-12, 12, 2), rng.uniform(6, 25)) for _ in range(2)]
    return exact(**shapes), shapes


def supersampled(shapes, at, grid, line_width, n=16):
    """Share of n x n points of every cell that lie in a class: inside a polygon, or near enough to a line."""
    rows, columns = grid.shape
    x = grid.x_min + (np.arange(columns * n) + 0.5) * grid.resolution / n
    y = grid.y_min + (np.arange(rows * n) + 0.5) * grid.resolution / n
    points = np.stack([*np.meshgrid(x, y), np.zeros((rows * n, columns * n))], axis=-1)
    px, py, _ = np.moveaxis(transform(at, points), -1, 0)
    result = []
    for c in CLASSES:
        inside = np.zeros(px.shape, dtype=bool)
        for shape in (shape for name in c.layers for shape in shapes[name]):
            if isinstance(shape, shapely.Polygon):
                inside |= even_odd(shape, px, py)
            else:
                inside |= beside(np.asarray(shape.coords), px, py, line_width / 2)
        result.append(inside.reshape(rows, n, columns, n).mean(axis=(1, 3)))
    return np.stack(result)


def even_odd(polygon, px, py):
    inside = np.zeros(px.shape, dtype=bool)
    for ring in (polygon.exterior, *polygon.interiors):
        corners = np.asarray(ring.coords)
        for (ax, ay), (bx, by) in pairwise(corners):
            inside ^= ((ay > py) != (by > py)) & (px < ax + (py - ay) / (by - ay if by != ay else 1) * (bx - ax))
    return inside


def beside(corners, px, py, reach):
    """Whether points are within reach of a line: beside one of its segments, or around one of its inner corners."""
    near = np.zeros(px.shape, dtype=bool)
    for (ax, ay), (bx, by) in pairwise(corners):
        length = math.hypot(bx - ax, by - ay)
        along = ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length
        across = ((px - ax) * (by - ay) - (py - ay) * (bx - ax)) / length
        near |= (along >= 0) & (along <= length) & (np.abs(across) <= reach)
    for x, y in corners[1:-1]:
        near |= np.hypot(px - x, py - y) <= reach
    return near


def test_a_cell_is_set_when_at_least_half_of_its_area_is_covered():
    agree, either = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for seed in range(2):
        raster, shapes = random_raster(seed)
        at = pose(*PLACE, 0.3 + 1.1 * seed)
        share, found = supersampled(shapes, at, GRID, 1.0), raster.rasterise(at, GRID).astype(bool)
        expected = share >= 0.5
        agree += (found & expected).sum(axis=(1, 2))
        either += (found | expected).sum(axis=(1, 2))
        # Where they disagree the samples are too few to tell.
        assert np.abs(share[found != expected] - 0.5).max(initial=0) < 0.03
    assert either.min() > 300
    assert (agree / either >= 0.995).all(), dict(zip(CLASS_NAMES, agree / either, strict=True))


@settings(max_examples=25)
@given(seed=SEED, x=OFFSET, y=OFFSET, heading=HEADING, turns=st.integers(1, 3))
def test_turning_by_right_angles_turns_the_mask(seed, x, y, heading, turns):
    raster, _ = random_raster(seed)
    here = pose(*PLACE) @ pose(x, y, heading)
    turned = raster.rasterise(here @ pose(heading=turns * math.pi / 2), SQUARE)
    np.testing.assert_array_equal(np.rot90(turned, turns, axes=(2, 1)), raster.rasterise(here, SQUARE))


@settings(max_examples=25)
@given(seed=SEED, x=OFFSET, y=OFFSET, heading=HEADING)
def test_a_mirrored_map_has_a_mirrored_mask(seed, x, y, heading):
    raster, shapes = random_raster(seed)
    x, y = PLACE + np.array([x, y])
    mirrored = {k: [shapely.transform(s, lambda p: p * (1, -1)) for s in v] for k, v in shapes.items()}
    found = exact(**mirrored).rasterise(pose(x, -y, -heading), SQUARE)
    np.testing.assert_array_equal(found[:, ::-1], raster.rasterise(pose(x, y, heading), SQUARE))


@settings(max_examples=25)
@given(seed=SEED, heading=HEADING, columns=st.integers(-30, 30), rows=st.integers(-30, 30))
def test_driving_on_by_whole_cells_shifts_the_mask(seed, heading, columns, rows):
    raster, _ = random_raster(seed)
    here = pose(*PLACE, heading)
    there = here @ pose(columns * GRID.resolution, rows * GRID.resolution)
    wide = BevGrid(-30, 30, -25, 25, 0.5)
    top, left = 30 + rows, 30 + columns
    expected = raster.rasterise(here, wide)[:, top : top + GRID.shape[0], left : left + GRID.shape[1]]
    np.testing.assert_array_equal(raster.rasterise(there, GRID), expected)


@settings(max_examples=25)
@given(x=st.floats(-2000, 2000), y=st.floats(-2000, 2000), heading=HEADING)
def test_a_covered_patch_is_full_without_seams(x, y, heading):
    raster = _everywhere()
    masks = raster.rasterise(pose(x, y, heading), BevGrid())
    assert masks[CLASS_NAMES.index("walkway")].all()
    assert masks.sum() == masks[CLASS_NAMES.index("walkway")].size


@cache
def _everywhere():
    return exact(walkway=[shapely.box(-2100, -2100, 2100, 2100)])


def mask(raster, name, grid=GRID):
    return raster.rasterise(pose(), grid)[CLASS_NAMES.index(name)]


def test_half_a_cell_is_enough_and_less_is_not():
    found = mask(exact(walkway=[shapely.box(0.25, -3, 4.3, 3)], stop_line=[shapely.box(0.26, -3, 4.2, 3)]), "walkway")
    assert set(np.nonzero(found)[1]) == set(range(30, 39))
    found = mask(exact(stop_line=[shapely.box(0.26, -3, 4.2, 3)]), "stop_line")
    assert set(np.nonzero(found)[1]) == set(range(31, 38))


def test_areas_in_a_cell_add_up_only_without_overlap():
    meet = exact(walkway=[shapely.box(0, 0, 0.15, 0.5), shapely.box(0.15, 0, 0.3, 0.5)])
    assert mask(meet, "walkway").sum() == 1
    overlap = exact(walkway=[shapely.box(0, 0, 0.15, 0.5), shapely.box(0, 0, 0.15, 0.5)])
    assert mask(overlap, "walkway").sum() == 0


def test_both_divider_layers_count_together():
    halves = {"road_divider": [[(-5, 0.2), (5, 0.2)]], "lane_divider": [[(-5, 0.5), (5, 0.5)]]}
    raster = exact(0.3, **{name: [shapely.LineString(line) for line in lines] for name, lines in halves.items()})
    rows, columns = np.nonzero(mask(raster, "divider"))  # from y = 0.05 to 0.65
    assert (set(rows), columns.min(), columns.max()) == ({20}, 20, 39)


@pytest.mark.parametrize(("width", "rows"), [(1.0, {19, 20}), (2.0, {18, 19, 20, 21}), (0.5, {19, 20})])
def test_lines_have_the_set_width_and_flat_ends(width, rows):
    found = mask(exact(width, lane_divider=[shapely.LineString([(-5, 0), (5, 0)])]), "divider")
    found_rows, columns = np.nonzero(found)
    assert (set(found_rows), columns.min(), columns.max()) == (rows, 20, 39)


@pytest.mark.parametrize("angle", np.linspace(0, math.pi / 2, 7))
def test_a_line_as_wide_as_a_cell_is_nowhere_broken(angle):
    line = shapely.LineString(
        [(-40 * math.cos(angle), -40 * math.sin(angle)), (40 * math.cos(angle), 40 * math.sin(angle))]
    )
    for offset in np.linspace(0, 0.5, 6):
        raster = exact(0.5, lane_divider=[shapely.transform(line, lambda p, o=offset: p + np.array([o, o / 3]))])
        assert cv2.connectedComponents(mask(raster, "divider", SQUARE))[0] == 2  # the ground and one line


def test_holes_are_empty():
    area = shapely.Polygon(shapely.box(-10, -8, 10, 8).exterior, [shapely.box(-4, -3, 4, 3).exterior])
    found = mask(exact(drivable_area=[area]), "drivable_area")
    expected = np.zeros(GRID.shape, dtype=np.uint8)
    expected[4:36, 10:50] = 1
    expected[14:26, 22:38] = 0
    np.testing.assert_array_equal(found, expected)


def test_a_map_without_shapes_is_empty_and_unknown():
    raster = exact()
    assert not raster.rasterise(pose(), GRID).any()
    assert raster.known == (False,) * len(CLASSES)


def test_shapes_that_reach_over_millions_of_tiles_are_refused():
    with pytest.raises(BridgeTAError, match=r"reach over .* tiles"):
        exact(walkway=[shapely.box(0, 0, 9e4, 9e4)])
