from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import invert, rigid, transform, yaw

CITY = "singapore-onenorth"


def pose(x=0.0, y=0.0, heading=0.0):
    return rigid((x, y, 0), (math.cos(heading / 2), 0, 0, math.sin(heading / 2)))


def box(x_low, x_high, y_low, y_high):
    return [(x_low, y_low), (x_high, y_low), (x_high, y_high), (x_low, y_high)]


def draw(sheet, tmp_path):
    sheet.write(tmp_path, CITY)
    return MapRaster.load(tmp_path, CITY)


def mask(raster, name, *, at=None, grid=None):
    return raster.rasterise(pose() if at is None else at, grid or BevGrid())[CLASS_NAMES.index(name)]


def devkit_masks(devkit, at, grid):
    """Masks of the devkit per class, None where it raises; its canvas is [y, x] as ours is."""
    size = (grid.y_max - grid.y_min, grid.x_max - grid.x_min)
    patch = (*at[:2, 3], *size)
    result = []
    for c in CLASSES:
        try:
            layers = [devkit.get_map_mask(patch, math.degrees(yaw(at)), [name], grid.shape)[0] for name in c.layers]
        except TypeError:  # devkit 1.2.0 with Shapely 2: a divider cut in several pieces
            layers = None
        result.append(None if layers is None else np.bitwise_or.reduce(layers))
    return result


def assert_equal_near_its_corners(raster, devkit, seed, count):
    """At poses around random corners of the map."""
    nodes = np.array([(node["x"], node["y"]) for node in devkit.node])
    random = np.random.default_rng(seed)
    for near in nodes[random.integers(len(nodes), size=count)]:
        at = pose(*(near + random.normal(0, 15, 2)), random.uniform(-np.pi, np.pi))
        assert assert_equal_to_the_devkit(raster, devkit, at, BevGrid()) >= 5


def assert_equal_to_the_devkit(raster, devkit, at, grid):
    compared = 0
    for c, ours, theirs in zip(CLASSES, raster.rasterise(at, grid), devkit_masks(devkit, at, grid), strict=True):
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{c.name} at {at.tolist()}")
            compared += 1
    return compared


@pytest.fixture(scope="module")
def drawn(small_root):
    from nuscenes.map_expansion.map_api import NuScenesMap

    return MapRaster.load(small_root, CITY), NuScenesMap(str(small_root), CITY)


@settings(max_examples=40)
@given(
    x=st.floats(-120, 120),
    y=st.floats(-120, 120),
    heading=st.floats(-math.pi, math.pi),
    grid=st.sampled_from([BevGrid(), BevGrid(-30, 30, -60, 60, 0.5), BevGrid(-20, 20, -20, 20, 0.25)]),
)
def test_equals_the_devkit_at_every_cell_for_any_pose_and_grid(drawn, x, y, heading, grid):
    assert assert_equal_to_the_devkit(*drawn, pose(x, y, heading), grid) >= 5


@pytest.mark.parametrize(
    "city", ["boston-seaport", "singapore-onenorth", "singapore-queenstown", "singapore-hollandvillage"]
)
def test_equals_the_devkit_on_real_cities(real_root, city):
    from nuscenes.map_expansion.map_api import NuScenesMap

    assert_equal_near_its_corners(MapRaster.load(real_root, city), NuScenesMap(str(real_root), city), 1, 25)


def test_equals_the_devkit_on_a_synthetic_town(tmp_path):
    from nuscenes.map_expansion.map_api import NuScenesMap

    from bridgeta_synth.dataset.map_expansion import build_expansion
    from bridgeta_synth.dataset.world import World
    from bridgeta_synth.settings import SynthSettings

    town = SynthSettings(scenes=1, seed=7)
    path = tmp_path / "maps" / "expansion" / f"{CITY}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(build_expansion(World(town).town(0), town.seeds)))
    assert_equal_near_its_corners(MapRaster.load(tmp_path, CITY), NuScenesMap(str(tmp_path), CITY), 2, 10)


def test_polygons_of_many_corners_equal_the_devkits(map_sheet, tmp_path):
    from nuscenes.map_expansion.map_api import NuScenesMap

    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    reach = 250 + 60 * np.sin(40 * angles) + 30 * np.sin(17 * angles)
    outline = reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    holes = [0.1 * outline[::5] + centre for centre in ((0, 0), (70, 40), (-60, 90), (20, -100))]
    sheet = map_sheet()
    sheet.polygon("drivable_area", outline, holes)
    raster = draw(sheet, tmp_path)
    devkit = NuScenesMap(str(tmp_path), CITY)
    random = np.random.default_rng(3)
    for _ in range(8):
        at = pose(*random.uniform(-280, 280, 2), random.uniform(-np.pi, np.pi))
        assert assert_equal_to_the_devkit(raster, devkit, at, BevGrid()) == 6


def test_draws_a_divider_that_the_patch_cuts_in_two(map_sheet, tmp_path):
    """The devkit raises TypeError here."""
    sheet = map_sheet()
    sheet.line("lane_divider", [(40, 10), (60, 10), (60, -10), (40, -10)])
    seen = mask(draw(sheet, tmp_path), "divider")
    assert cv2.connectedComponents(seen)[0] == 3  # the ground and two pieces
    assert seen[119:121, 185:].any(axis=0).all()
    assert seen[79:81, 185:].any(axis=0).all()


def test_forward_is_along_columns_and_left_along_rows(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.polygon("walkway", box(10, 20, 30, 34))
    raster = draw(sheet, tmp_path)
    rows, columns = np.nonzero(mask(raster, "walkway"))
    # 10 m to 20 m ahead are columns 120 to 140, 30 m to 34 m to the left rows 160 to 168, borders included.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (120, 140, 160, 168)
    rows, columns = np.nonzero(mask(raster, "walkway", at=pose(heading=math.pi / 2)))
    # Having turned left, what was on the left is ahead and what was ahead is on the right.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (160, 168, 60, 80)


def test_holes_are_empty_and_later_shapes_may_cover_them(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.polygon("drivable_area", box(-20, 20, -20, 20), [box(-10, 10, -10, 10)])
    sheet.polygon("drivable_area", box(-2, 2, -2, 2))
    seen = mask(draw(sheet, tmp_path), "drivable_area")
    assert seen[100, 100]
    assert not seen[100, 110]
    assert seen[100, 130]


def test_lines_are_about_a_metre_wide(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.line("road_divider", [(-60, 3.2), (60, 3.2)])
    seen = mask(draw(sheet, tmp_path), "divider")
    assert set(seen[:, 20:180].sum(axis=0)) <= {2, 3}


@pytest.mark.parametrize("at", [pose(), pose(100, -50, 2.2)], ids=["at the origin", "elsewhere"])
@pytest.mark.parametrize(
    ("grid", "columns", "rows"),
    [
        (BevGrid(0, 40, -30, 10, 0.5), (20, 40), (52, 64)),
        (BevGrid(-10, 30, -10, 10, 0.25), (80, 120), (24, 48)),
        (BevGrid(15, 100, -2, 80, 1.0), (0, 5), (0, 4)),
    ],
)
def test_a_grid_need_not_be_square_or_centred_on_the_vehicle(map_sheet, tmp_path, at, grid, columns, rows):
    sheet = map_sheet()
    corners = np.array([(*corner, 0) for corner in box(10, 20, -4, 2)])
    sheet.polygon("walkway", transform(at, corners)[:, :2])
    found_rows, found_columns = np.nonzero(mask(draw(sheet, tmp_path), "walkway", at=at, grid=grid))
    assert (found_columns.min(), found_columns.max()) == columns
    assert (found_rows.min(), found_rows.max()) == rows


def test_roll_and_pitch_do_not_matter(drawn):
    level = pose(10, 5, 0.7)
    tilted = level @ rigid((0, 0, 0.4), (1, 0.02, 0.03, 0))
    tilted = tilted @ rigid((0, 0, 0), (1, 0, 0, -math.tan((yaw(tilted) - yaw(level)) / 2)))
    agree = drawn[0].rasterise(tilted, BevGrid()) == drawn[0].rasterise(level, BevGrid())
    assert agree.mean() > 0.999


def test_a_class_without_any_shape_is_unknown(small_root):
    assert MapRaster.load(small_root, CITY).known == (True,) * 6
    expected = tuple(name != "stop_line" for name in CLASS_NAMES)
    assert MapRaster.load(small_root, "boston-seaport").known == expected


def test_one_divider_layer_is_enough_to_know_dividers(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.line("road_divider", [(0, 0), (1, 1)])
    assert draw(sheet, tmp_path).known == tuple(name == "divider" for name in CLASS_NAMES)


def test_outlines_lie_on_the_ground_in_the_ego_frame(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.polygon("walkway", box(10, 20, 30, 34), [box(12, 14, 31, 33)])
    sheet.line("lane_divider", [(-500, 3), (500, 3)])
    raster = draw(sheet, tmp_path)
    at = pose(4, 2, 0.5) @ rigid((0, 0, 0), (1, 0.01, 0.01, 0))
    lines = raster.polylines(at, radius=50)
    assert set(lines) == set(CLASS_NAMES)
    assert not lines["ped_crossing"]
    for found in lines.values():
        for line in found:
            np.testing.assert_allclose(transform(at, line)[:, 2], 0, atol=1e-9)
    (divider,) = lines["divider"]
    np.testing.assert_allclose(np.sort(transform(at, divider)[:, 0]), [-46, 54], atol=1e-9)  # cut to 50 m around x = 4
    assert {len(ring) for ring in lines["walkway"]} == {5}  # closed: the outline and its hole
    corners = np.concatenate([transform(at, line) for line in lines["walkway"]])
    assert (corners[:, 0].min(), corners[:, 1].max()) == (pytest.approx(10), pytest.approx(34))
    np.testing.assert_allclose(transform(invert(at), transform(at, divider)), divider)


def test_bevfusions_masks_are_the_devkits_along_the_lidars_axes(small_root, drawn):
    """Its patch lies 90 degrees clockwise of the vehicle's: columns to the right, rows ahead."""
    raster, devkit = MapRaster.load(small_root, CITY, LabelConfig(mode="bevfusion")), drawn[1]
    grid = BevGrid(-30, 50, -20, 40, 0.5)
    random = np.random.default_rng(4)
    for _ in range(6):
        at = pose(*random.uniform(-60, 60, 2), random.uniform(-np.pi, np.pi))
        right = at @ rigid((0, 0, 0), (math.sqrt(0.5), 0, 0, -math.sqrt(0.5)))
        middle = transform(right, np.array([-10.0, 10.0, 0.0]))  # of the patch, which is not centred on the vehicle
        centred = rigid(middle, (1, 0, 0, 0))
        centred[:3, :3] = right[:3, :3]
        theirs = devkit_masks(devkit, centred, BevGrid(-30, 30, -40, 40, 0.5))
        for c, ours, drawn_right in zip(CLASSES, raster.rasterise(at, grid), theirs, strict=True):
            if drawn_right is not None:
                different = (ours != np.flipud(drawn_right.T)).mean()
                assert different < (0.01 if c.name == "divider" else 1e-4), c.name  # the last bit of a pose may differ


def test_bevfusion_areas_grow_right_and_devkit_areas_left(map_sheet, tmp_path):
    sheet = map_sheet()
    sheet.polygon("walkway", box(-10, 10, -10, 10))
    ours = draw(sheet, tmp_path)
    theirs = MapRaster.load(tmp_path, CITY, LabelConfig(mode="bevfusion"))
    x, y = BevGrid().centres()
    ahead = (x > -10) & (x < 10.5)
    np.testing.assert_array_equal(mask(ours, "walkway"), np.outer((y > -10) & (y < 10.5), ahead))
    np.testing.assert_array_equal(mask(theirs, "walkway"), np.outer((y > -10.5) & (y < 10), ahead))
