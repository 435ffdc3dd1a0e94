"""The local map is the mean of its frames, each at its place, for any way of the ego."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.local_map import LocalMap
from bridgeta_core.utils.errors import BridgeTAError

Array = NDArray[np.floating]

GRID = BevGrid(-3, 5, -3, 3, 0.5)  # 12 x 16 cells, neither square nor centred
SIZE = 20.0  # metres, 40 cells
SHAPE = (6, *GRID.shape)
ALL = np.ones(GRID.shape, dtype=bool)
NONE = np.zeros(GRID.shape, dtype=bool)

angles = st.floats(-math.pi, math.pi)
frames = arrays(np.float32, SHAPE, elements=st.floats(0.0625, 0.9375, width=32))
masks = arrays(np.bool_, GRID.shape)
nuscenes_metres = st.floats(-3000, 3000)


def pose(x: float = 0, y: float = 0, yaw: float = 0, pitch: float = 0, roll: float = 0, z: float = 0) -> Array:
    """Return map_T_base, turned about z, then the new y, then the new x."""
    (cz, sz), (cy, sy), (cx, sx) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    result = np.eye(4)
    result[:3, :3] = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    result[:3, 3] = (x, y, z)
    return result


def logit(p: Array | float) -> Array:
    return np.log(p / (1 - np.asarray(p, dtype=np.float64)))


def sigmoid(log_odds: Array | float) -> Array:
    return 1 / (1 + np.exp(-np.asarray(log_odds, dtype=np.float64)))


def evidence(local: LocalMap) -> Array:
    """Return the log-odds of the map, 0 where it knows nothing."""
    return np.nan_to_num(logit(local.probabilities()))


def under_the_result(local: LocalMap) -> tuple[slice, slice, slice]:
    """Return the cells that the result's cells coincide with when the base is at the origin."""
    column, row = np.rint(local.grid.to_cells(np.array((GRID.x_min, GRID.y_min)))).astype(int)
    return slice(None), slice(row, row + SHAPE[1]), slice(column, column + SHAPE[2])


def centres(grid: BevGrid) -> tuple[Array, Array]:
    x, y = np.meshgrid(*grid.centres())
    return x, y


# What a cell becomes


@given(frames, masks, st.floats(0.05, 1))
def test_one_frame_is_the_map_of_its_seen_cells(probabilities, seen, gain):
    local = LocalMap(GRID, SIZE, gain=gain)
    local.update(probabilities, seen, pose())
    expected = np.full((6, 40, 40), np.nan)
    expected[under_the_result(local)] = np.where(seen, probabilities, np.nan)
    np.testing.assert_allclose(local.probabilities(), expected, atol=1e-6)


@given(st.lists(st.tuples(frames, masks), min_size=1, max_size=5))
def test_the_first_frames_count_alike(results):
    local = LocalMap(GRID, SIZE)
    for probabilities, seen in results:
        local.update(probabilities, seen, pose())
    count = sum(seen.astype(int) for _, seen in results)
    total = sum(logit(probabilities) * seen for probabilities, seen in results)
    mean = np.where(count > 0, total / np.maximum(count, 1), 0)
    np.testing.assert_allclose(evidence(local)[under_the_result(local)], mean, atol=1e-4)


@given(st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.integers(1, 30))
def test_later_frames_count_by_the_gain(gain, first, second, frames):
    local, remembered = LocalMap(GRID, SIZE, gain=gain), round(1 / gain)
    for _ in range(remembered):
        local.update(np.full(SHAPE, first), ALL, pose())
    for _ in range(frames):
        local.update(np.full(SHAPE, second), ALL, pose())
    left = (1 - gain) ** frames
    expected = left * logit(first) + (1 - left) * logit(second)
    np.testing.assert_allclose(evidence(local)[under_the_result(local)], expected, atol=1e-4)


@pytest.mark.parametrize(("probability", "end"), [(1.0, 0.99), (0.0, 0.01)])
def test_a_frame_is_never_quite_sure(probability, end):
    local = LocalMap(GRID, SIZE)
    for _ in range(3):
        local.update(np.full(SHAPE, probability), ALL, pose())
    np.testing.assert_allclose(local.probabilities()[under_the_result(local)], end, rtol=1e-4)


def test_what_the_network_is_unsure_of_stays_unsure():
    local = LocalMap(GRID, SIZE)
    for _ in range(50):
        local.update(np.full(SHAPE, 0.4), ALL, pose())
    np.testing.assert_allclose(local.probabilities()[under_the_result(local)], 0.4, rtol=1e-4)


def test_probabilities_are_those_of_one_frame_and_nan_where_unobserved():
    local = LocalMap(GRID, SIZE, gain=1)
    assert local.probabilities().shape == (6, 40, 40)
    assert np.isnan(local.probabilities()).all()
    seen = NONE.copy()
    seen[:, :3] = True
    probabilities = np.empty(SHAPE, dtype=np.float32)
    probabilities[:] = np.array((0.1, 0.25, 0.5, 0.75, 0.9, 0.995))[:, None, None]
    local.update(probabilities, seen, pose())
    covered = local.probabilities()[under_the_result(local)]
    expected = np.array((0.1, 0.25, 0.5, 0.75, 0.9, 0.99))
    for layer, value in zip(covered, expected, strict=True):
        np.testing.assert_allclose(layer[:, :3], value, rtol=1e-5)
    assert np.isnan(covered[:, :, 3:]).all()
    assert (~np.isnan(local.probabilities())).sum() == 6 * seen.sum()


@given(frames, frames, arrays(np.bool_, SHAPE), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_cell_with_a_value_that_is_not_finite_is_left_out(first, second, broken, value):
    assume(broken.all() or not broken.all(axis=(1, 2)).any())  # a class that is nowhere known is another matter
    local = LocalMap(GRID, SIZE)
    local.update(first, ALL, pose())
    local.update(np.where(broken, value, second).astype(np.float32), ALL, pose())
    mean = np.where(broken.any(axis=0), logit(first), (logit(first) + logit(second)) / 2)
    np.testing.assert_allclose(evidence(local)[under_the_result(local)], mean, atol=1e-4)


@given(frames, arrays(np.bool_, SHAPE), angles, st.floats(-2, 2), st.floats(-2, 2))
def test_nan_never_spreads_into_what_is_known(probabilities, broken, yaw, x, y):
    assume(broken.all() or not broken.all(axis=(1, 2)).any())
    local = LocalMap(GRID, SIZE)
    local.update(probabilities, ALL, pose())
    known = ~np.isnan(local.probabilities()[under_the_result(local)])
    local.update(np.where(broken, np.nan, probabilities), ALL, pose(x, y, yaw))
    local.update(probabilities, NONE, pose())
    assert known.all()
    assert np.isfinite(local.probabilities()[under_the_result(local)]).all()


def test_a_cell_that_is_only_ever_nan_stays_unknown():
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, np.nan), ALL, pose())
    assert np.isnan(local.probabilities()).all()


@given(frames, st.sets(st.integers(0, 5), min_size=1, max_size=5), angles)
def test_a_class_that_is_nan_everywhere_is_unknown_and_the_others_are_as_without(probabilities, unknown, yaw):
    plain, local = LocalMap(GRID, SIZE), LocalMap(GRID, SIZE)
    plain.update(probabilities, ALL, pose(yaw=yaw))
    without = probabilities.copy()
    without[list(unknown)] = np.nan
    local.update(without, ALL, pose(yaw=yaw))
    for found, expected in (
        (local.probabilities(), plain.probabilities()),
        (local.look_up(pose(yaw=yaw)), plain.look_up(pose(yaw=yaw))),
    ):
        expected[list(unknown)] = np.nan
        np.testing.assert_array_equal(found, expected)
    local.reset()
    local.update(probabilities, ALL, pose(yaw=yaw))
    assert np.isfinite(local.probabilities()).any(axis=(1, 2)).all()


def test_what_is_not_seen_takes_no_part_beside_what_is():
    seen = NONE.copy()
    seen[5, 7] = True
    local = LocalMap(GRID, SIZE)
    local.update(np.where(seen, 0.9, 0.1) * np.ones(SHAPE), seen, pose(x=GRID.resolution / 4, y=GRID.resolution / 5))
    known = local.probabilities()[~np.isnan(local.probabilities())]
    np.testing.assert_allclose(known, [0.9] * 6, rtol=1e-4)  # the one cell whose centre is in it


# Where it is


@given(frames, masks, st.integers(-6000, 6000), st.integers(-6000, 6000))
def test_moving_the_ego_by_whole_cells_moves_the_map_by_them(probabilities, seen, columns, rows):
    at_origin, moved = LocalMap(GRID, SIZE), LocalMap(GRID, SIZE)
    at_origin.update(probabilities, seen, pose())
    moved.update(probabilities, seen, pose(columns * GRID.resolution, rows * GRID.resolution))
    np.testing.assert_array_equal(moved.probabilities(), at_origin.probabilities())
    assert moved.grid.x_min - at_origin.grid.x_min == columns * GRID.resolution
    assert moved.grid.y_min - at_origin.grid.y_min == rows * GRID.resolution


@given(frames, masks)
def test_a_quarter_turn_of_the_ego_turns_the_map(probabilities, seen):
    straight, turned = LocalMap(GRID, SIZE), LocalMap(GRID, SIZE)
    straight.update(probabilities, seen, pose())
    turned.update(probabilities, seen, pose(yaw=math.pi / 2))
    # Rows go up in y, so a turn to the left is np.rot90's turn to the right.
    expected = np.rot90(straight.probabilities(), k=-1, axes=(1, 2))
    np.testing.assert_allclose(turned.probabilities(), expected, atol=1e-6)


@given(nuscenes_metres, nuscenes_metres, angles, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_ahead_and_left_of_the_ego_are_ahead_and_left_in_the_map(x, y, yaw, pitch, roll):
    ahead, left = 1.9, 0.6
    bx, by = centres(GRID)
    blob = 4 * np.exp(-((bx - ahead) ** 2 + (by - left) ** 2) / (2 * 0.6**2))
    local = LocalMap(GRID, SIZE)
    local.update(np.broadcast_to(sigmoid(blob), SHAPE), ALL, pose(x, y, yaw, pitch, roll, z=12))
    weights = evidence(local)
    mx, my = (axis - centre for axis, centre in zip(centres(local.grid), (x, y), strict=True))
    found = np.array([(weights * axis).sum() / weights.sum() for axis in (mx, my)])
    expected = (ahead * math.cos(yaw) - left * math.sin(yaw), ahead * math.sin(yaw) + left * math.cos(yaw))
    assert np.abs(found - expected).max() < GRID.resolution / 20


@given(frames, angles, st.floats(-1, 1), st.floats(-1, 1))
def test_roll_pitch_and_height_of_a_pose_do_not_count(probabilities, yaw, pitch, roll):
    flat, tilted = LocalMap(GRID, SIZE), LocalMap(GRID, SIZE)
    flat.update(probabilities, ALL, pose(0.2, 0.1, yaw))
    tilted.update(probabilities, ALL, pose(0.2, 0.1, yaw, pitch, roll, z=3))
    close = np.isclose(flat.probabilities(), tilted.probabilities(), atol=0.02, equal_nan=True)
    assert close.mean() > 0.999  # the last bit of a heading may put a centre into the next cell


def drive() -> Iterator[tuple[float, float, float]]:
    """Return x, y and yaw along a bend to the left that begins at nuScenes-like coordinates."""
    for step in range(24):
        yaw = 0.4 + 0.06 * step
        yield 1847.3 + 7.3 * (math.sin(yaw) - math.sin(0.4)), 911.7 - 7.3 * (math.cos(yaw) - math.cos(0.4)), yaw


def scene(x: Array, y: Array) -> Array:
    """Return the log-odds of the world at metres of the map frame."""
    return 3 * np.sin(0.31 * x + 0.17 * y) * np.cos(0.22 * y - 0.05 * x + 1)


def test_an_ego_moving_through_a_static_world_maps_it():
    bev, r = BevGrid(-10, 10, -8, 8, 0.5), 0.5
    local = LocalMap(bev, 50.0)
    bx, by = centres(bev)
    for x, y, yaw in drive():
        c, s = math.cos(yaw), math.sin(yaw)
        probabilities = np.broadcast_to(sigmoid(scene(x + c * bx - s * by, y + s * bx + c * by)), (6, *bev.shape))
        local.update(probabilities, np.ones(bev.shape, dtype=bool), pose(x, y, yaw))

    mx, my = centres(local.grid)
    count, doubtful = np.zeros(mx.shape), np.zeros(mx.shape, dtype=bool)
    for x, y, yaw in drive():
        ahead = math.cos(yaw) * (mx - x) + math.sin(yaw) * (my - y)
        left = math.cos(yaw) * (my - y) - math.sin(yaw) * (mx - x)
        inside = np.minimum.reduce([ahead + 10, 10 - ahead, left + 8, 8 - left])  # metres from the border
        count += inside > 0
        doubtful |= np.abs(inside - r / 4) < r / 2  # at the border neighbours are missing
    assert ((count == 24) & ~doubtful).sum() > 300
    # In no direction is the scene steeper than 3 * 0.75 or more curved than 3 * 0.75^2 (the wave numbers add up).
    # Linear interpolation errs by r^2 / 8 of the curvature per axis, and OpenCV rounds to 1/32 of a cell.
    bound = r**2 / 8 * 2 * 3 * 0.75**2 + r / 32 * 3 * 0.75
    error = np.abs(evidence(local) - (count > 0) * scene(mx, my))[:, ~doubtful]
    assert (error <= bound + 1e-5).all()
    assert np.array_equal(np.isnan(local.probabilities()[0])[~doubtful], (count == 0)[~doubtful])
    # The decision is the world's wherever that is clear.
    clear = ~doubtful & (count > 0) & (np.abs(scene(mx, my)) > bound)
    assert np.array_equal((local.probabilities()[:, clear] > 0.5).all(axis=0), scene(mx, my)[clear] > 0)


steps = st.tuples(frames, masks, st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), angles)


@given(st.lists(steps, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_the_frames_does_not_matter(taken, random):
    shuffled = random.sample(taken, len(taken))
    maps = []
    for order in (taken, shuffled):
        local = LocalMap(GRID, SIZE)
        for probabilities, seen, x, y, yaw in order:
            local.update(probabilities, seen, pose(x, y, yaw))
        local.update(order[0][0], NONE, pose())
        maps.append(local.probabilities())
    np.testing.assert_allclose(*maps, atol=1e-5)


# How it moves


paths = st.lists(st.tuples(st.floats(-14, 14), st.floats(-14, 14)), min_size=1, max_size=6)


@given(frames, paths)
def test_cells_that_leave_the_window_are_forgotten_and_others_kept(probabilities, path):
    local = LocalMap(GRID, SIZE)
    local.update(probabilities, ALL, pose())
    before, first = local.probabilities(), local.grid
    kept = np.ones((40, 40), dtype=bool)
    x, y = centres(first)
    for to in path:
        local.update(probabilities, NONE, pose(*to))
        grid = local.grid
        kept &= (x > grid.x_min) & (x < grid.x_max) & (y > grid.y_min) & (y < grid.y_max)
    local.update(probabilities, NONE, pose())
    assert local.grid == first
    np.testing.assert_array_equal(local.probabilities(), np.where(kept, before, np.nan))


@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.sampled_from([0.1, 0.3, 0.4, 0.5]), st.integers(1, 9))
def test_the_window_is_centred_on_the_ego_and_aligned_to_cells(x, y, resolution, cells):
    bev = BevGrid(0, resolution, 0, resolution, resolution)
    local = LocalMap(bev, cells * resolution)
    local.update(np.full((6, 1, 1), 0.5), np.ones((1, 1), dtype=bool), pose(x, y))
    grid = local.grid
    assert grid.shape == (cells, cells)
    corner = np.array((grid.x_min, grid.y_min)) / resolution
    np.testing.assert_allclose(corner, np.rint(corner), atol=1e-6)
    middle = np.array(((grid.x_min + grid.x_max) / 2, (grid.y_min + grid.y_max) / 2))
    assert (np.abs(middle - (x, y)) <= resolution / 2 + 1e-6).all()


@pytest.mark.parametrize("far", [(SIZE, 0), (0, -SIZE), (1e6, 1e6)])
def test_a_jump_beyond_the_window_empties_it(far):
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, 0.9), ALL, pose())
    local.update(np.full(SHAPE, 0.9), NONE, pose(*far))
    assert np.isnan(local.probabilities()).all()
    local.update(np.full(SHAPE, 0.9), ALL, pose(*far))
    assert (~np.isnan(local.probabilities())).sum() == 6 * ALL.size


def test_a_window_smaller_than_the_result_holds_its_middle():
    local = LocalMap(GRID, 2.0, gain=1)
    probabilities = np.linspace(0.1, 0.9, 6 * ALL.size).reshape(SHAPE)
    local.update(probabilities, ALL, pose())
    np.testing.assert_allclose(local.probabilities(), probabilities[:, 4:8, 4:8], rtol=1e-5)


def test_reset_forgets_everything_and_leaves_the_window_in_place():
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, 0.9), ALL, pose(7, 8))
    grid = local.grid
    local.reset()
    assert np.isnan(local.probabilities()).all()
    assert local.grid == grid


@given(frames, masks, angles, nuscenes_metres, nuscenes_metres)
def test_a_map_of_one_frame_looks_up_that_frame(probabilities, seen, yaw, x, y):
    """Where the pose lies on the cells of the window, nothing is interpolated."""
    x, y, yaw = round(x) / 2, round(y) / 2, round(yaw) * math.pi / 2
    local = LocalMap(GRID, SIZE, gain=1)
    local.update(probabilities, seen, pose(x, y, yaw))
    found = local.look_up(pose(x, y, yaw))
    np.testing.assert_array_equal(~np.isnan(found), np.broadcast_to(seen, SHAPE))
    np.testing.assert_allclose(found[:, seen], probabilities[:, seen], rtol=1e-4)


def test_what_was_seen_before_is_looked_up_at_its_place():
    local = LocalMap(GRID, SIZE, gain=1)
    probabilities = np.full(SHAPE, 0.5, dtype=np.float32)
    probabilities[2, 4, 10] = 0.9  # 2.25 m ahead, 0.75 m to the right
    local.update(probabilities, ALL, pose())
    found = local.look_up(pose(1.0, -1.0, math.pi / 2))  # the ego looks left; the spot is behind it, to the right
    assert np.isnan(found).any()
    row, column = divmod(int(np.nanargmax(found[2])), GRID.shape[1])
    spot = np.array((GRID.x_min, GRID.y_min)) + (np.array((column, row)) + 0.5) * GRID.resolution
    np.testing.assert_allclose(spot, (0.25, -1.25), atol=1e-6)
    assert found[2, row, column] == pytest.approx(0.9, rel=1e-4)


def test_nothing_is_looked_up_outside_the_window():
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, 0.9), ALL, pose())
    assert np.isnan(local.look_up(pose(SIZE, SIZE))).all()


# What is refused


def changed(row: int, column: int, value: float) -> Array:
    result = np.eye(4)
    result[row, column] = value
    return result


@pytest.mark.parametrize(
    "bad",
    [
        changed(0, 3, math.nan),
        changed(1, 0, math.nan),
        changed(1, 3, math.inf),
        changed(2, 2, -math.inf),
        changed(0, 3, 1e9),
        np.zeros((4, 4)),
        np.eye(3),
        pose(pitch=math.pi / 2),
    ],
    ids=["nan x", "nan rotation", "infinite y", "infinite rotation", "not on Earth", "zeros", "3x3", "nose down"],
)
def test_an_invalid_pose_is_refused_and_changes_nothing(bad):
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, 0.9), ALL, pose(3, 4))
    before, grid = local.probabilities(), local.grid
    with pytest.raises(BridgeTAError, match="pose"):
        local.update(np.full(SHAPE, 0.1), ALL, bad)
    np.testing.assert_array_equal(local.probabilities(), before)
    assert local.grid == grid


@pytest.mark.parametrize(
    ("probabilities", "seen"),
    [
        ((6, 16, 12), (12, 16)),
        ((5, 12, 16), (12, 16)),
        ((12, 16), (12, 16)),
        ((6, 12, 16), (16, 12)),
        ((6, 12, 16), (6, 12, 16)),
    ],
)
def test_arrays_of_another_shape_are_refused_and_change_nothing(probabilities, seen):
    local = LocalMap(GRID, SIZE)
    local.update(np.full(SHAPE, 0.9), ALL, pose())
    before, grid = local.probabilities(), local.grid
    with pytest.raises(BridgeTAError, match=r"instead of \[6, 12, 16\] and \[12, 16\]"):
        local.update(np.full(probabilities, 0.5), np.ones(seen, dtype=bool), pose(1, 1))
    np.testing.assert_array_equal(local.probabilities(), before)
    assert local.grid == grid


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 120.2}, "120.2 m is not a whole number of 0.5 m cells"),
        ({"size": 0.0}, "whole number"),
        ({"size": -10.0}, "whole number"),
        ({"size": math.nan}, "whole number"),
        ({"size": math.inf}, "whole number"),
        ({"gain": 0.0}, "gain is 0"),
        ({"gain": 1.5}, "gain is 1.5"),
        ({"gain": math.nan}, "gain is nan"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        LocalMap(GRID, **settings)
    assert error.value.exit_code == 2
