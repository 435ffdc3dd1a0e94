"""Rays hit solids on their surface, whatever their pose and however many images there are."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry.transforms import Matrix, invert, rigid, transform
from bridgeta_synth.render.rays.ray_caster import (
    NOTHING,
    View,
    bound_in_sweep,
    cast_rays,
    iter_chunks,
    rotate,
    trace_views,
)
from bridgeta_synth.world.solids import BODY, SolidList, Solids

CPU = torch.device("cpu")
INTRINSICS = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1]])
# Optical frames look along z with y down; this one looks along the global x axis.
AHEAD = rigid((0, 0, 1.5), (0.5, -0.5, 0.5, -0.5))


def _pose(x: float, y: float, z: float, yaw: float, tilt: float) -> Matrix:
    """Compose a heading with a tilt about the solid's own y axis."""
    turned = rigid((x, y, z), (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)))
    return turned @ rigid((0, 0, 0), (math.cos(tilt / 2), 0, math.sin(tilt / 2), 0))


def _one(pose: Matrix, size: tuple[float, float, float], lean: float, is_round: bool) -> Solids:
    solids = SolidList()
    solids.add(BODY, (0, 0, 0), size, (1, 1, 1), lean=(lean, lean / 2, lean / 3), owner=0, is_round=is_round)
    return solids.build().transform(pose[None])


STANDING = st.builds(
    _pose,
    x=st.floats(6, 40),
    y=st.floats(-3, 3),
    z=st.floats(-1, 1),
    yaw=st.floats(-3.1, 3.1),
    tilt=st.sampled_from((0.0, 0.06, -0.3)),
)
SIZE = st.tuples(st.floats(1, 5), st.floats(1, 5), st.floats(2, 5))


@given(pose=STANDING, size=SIZE, lean=st.sampled_from((0.0, 0.1, 0.3)), is_round=st.booleans())
@settings(max_examples=40)
def test_rays_hit_solids_on_their_surface_and_nowhere_else(
    pose: Matrix, size: tuple[float, float, float], lean: float, is_round: bool
) -> None:
    solids = _one(pose, size, lean, is_round)
    view = View(AHEAD, INTRINSICS, 80, 60)
    traced = trace_views(None, solids, [view], CPU)
    everywhere = [np.array([[0, 80, 0, 60]])]
    unculled = cast_rays(None, [solids], AHEAD[None, :3, 3], traced.direction, 80, 60, everywhere, [np.zeros(1, int)])
    assert torch.equal(traced.row, unculled.row)
    hit = (traced.row == 0).nonzero()[:, 0]
    x, y, z = transform(invert(pose), traced.points(hit).numpy().astype(np.float64)).T
    length, width, height = size
    if is_round:
        level = (x / (length / 2)) ** 2 + (y / (width / 2)) ** 2 + ((z - height / 2) / (height / 2)) ** 2
        np.testing.assert_allclose(level, 1, atol=5e-3)
    else:
        gaps = (
            length / 2 - x - lean * z,
            length / 2 + x - lean / 2 * z,
            width / 2 - np.abs(y) - lean / 3 * z,
            height - z,
            z,
        )
        np.testing.assert_allclose(np.min(gaps, axis=0), 0, atol=5e-3)
    # The middle of the solid is seen where it projects to.
    middle = transform(invert(AHEAD) @ pose, np.array([[0, 0, height / 2]]))[0]
    column, row = np.round(INTRINSICS[:2, :2] @ (middle[:2] / middle[2]) + INTRINSICS[:2, 2]).astype(int)
    slim = lean * height < 0.4 * min(length, width)
    if slim and 0 <= column < 80 and 0 <= row < 60:
        assert traced.row[row * 80 + column] == 0
    assert torch.isinf(traced.distance[traced.row == NOTHING]).all()


def test_the_nearest_solid_is_seen_and_all_pairs_are_known() -> None:
    solids = SolidList()
    for distance in (30.0, 10.0, 20.0):
        solids.add(BODY, (distance, 0, 0), (1, 4, 4), (1, 1, 1))
    traced = trace_views(None, solids.build(), [View(AHEAD, INTRINSICS, 80, 60)], CPU)
    centre = 30 * 80 + 40
    assert traced.row[centre] == 1
    assert abs(float(traced.distance[centre]) - 9.5) < 1e-4
    assert set(traced.pair_row[traced.pair_ray == centre].tolist()) == {0, 1, 2}


def test_several_images_at_once_equal_each_alone() -> None:
    solids = Solids.join([_one(_pose(x, 0.4 * x - 4, 0, x, 0.05), (3, 2, 2), 0.1, x > 12) for x in (8.0, 12.0, 16.0)])
    views = [View(AHEAD, INTRINSICS, 80, 60), View(_pose(1, 2, 0, 0.1, 0) @ AHEAD, INTRINSICS, 80, 60)]
    both = trace_views(None, solids, views, CPU)
    for number, view in enumerate(views):
        alone = trace_views(None, solids, [view], CPU)
        part = slice(number * 4800, (number + 1) * 4800)
        torch.testing.assert_close(both.distance[part], alone.distance)
        solid = torch.where(both.row[part] >= 0, both.solids.solid_of(both.row[part]), both.row[part])
        assert torch.equal(solid, alone.row)
        assert (both.view[part] == number).all()


def test_a_mirrored_view_sees_the_mirrored_world() -> None:
    solids = _one(_pose(10, 1, 0, 0.5, 0), (4, 2, 2), 0.0, False)
    below = AHEAD.copy()
    below[2] *= -1
    mirror = trace_views(None, solids, [View(below, INTRINSICS, 80, 60)], CPU)
    upside_down = solids.take(np.array([0]))
    upside_down.z = upside_down.z - upside_down.height
    seen = trace_views(None, upside_down, [View(AHEAD, INTRINSICS, 80, 60)], CPU)
    assert torch.equal(mirror.row, seen.row)


@given(
    pose=STANDING,
    size=SIZE,
    around=st.floats(-3.1, 3.1),
    start=st.floats(-7, 7),
    columns=st.sampled_from((30, 90, 360)),
)
@settings(max_examples=40)
def test_a_sector_of_a_sweep_hits_what_the_whole_turn_hits(
    pose: Matrix, size: tuple[float, float, float], around: float, start: float, columns: int
) -> None:
    turn = rigid((0, 0, 0), (math.cos(around / 2), 0, 0, math.sin(around / 2)))
    solids = _one(turn @ pose, size, 0.1, False)
    elevations = np.deg2rad(np.arange(-30, 12, 2.0))
    azimuth = start + (np.arange(columns) + 0.5) * (2 * np.pi / 360)
    e = elevations[:, None]
    beams = np.stack(np.broadcast_arrays(np.cos(e) * np.cos(azimuth), np.cos(e) * np.sin(azimuth), np.sin(e)), axis=-1)
    directions = rotate(torch.from_numpy(beams.reshape(-1, 3).astype(np.float32)), np.eye(3))
    sensor = rigid((0, 0, 1.8), (1, 0, 0, 0))
    boxes, which = bound_in_sweep(solids, solids.corners(), invert(sensor), start, columns, 360, elevations)
    origin, height = sensor[None, :3, 3], len(elevations)
    culled = cast_rays(None, [solids], origin, directions, columns, height, [boxes], [which])
    everywhere = [np.array([[0, columns, 0, height]])]
    whole = cast_rays(None, [solids], origin, directions, columns, height, everywhere, [np.zeros(1, int)])
    assert torch.equal(culled.row, whole.row)


def test_chunks_cover_everything_once() -> None:
    for count in (0, 1, 70_000, 200_000):
        covered = [i for chunk in iter_chunks(count, CPU) for i in (chunk.start, chunk.stop)]
        assert sum(covered[1::2]) - sum(covered[::2]) == count
