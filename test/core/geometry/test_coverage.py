"""What cameras see of the grid is known, and what is probably wrong with a rig is said; a good rig gives no remark."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.coverage import find_remarks, measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_synth import nuscenes

GRID, LIFT = BevGrid(), LiftConfig()
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # base_link <- optical frame, looking ahead


def camera(
    name="front", width=1600, height=900, view=70.0, at=(1.5, 0.0, 1.5), yaw=0.0, pitch=0.0, roll=0.0, **changes
):
    """Make a camera that looks `pitch` degrees down, with `view` degrees from side to side."""
    focal = width / 2 / np.tan(np.radians(view / 2))
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZYX", (yaw, pitch, roll), degrees=True).as_matrix() @ OPTICAL
    pose[:3, 3] = at
    k = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    return replace(Camera(name, width, height, k, pose), **changes)


def fisheye(name="side", **changes):
    base = camera(name, 1280, 800, **changes)
    k = np.array([[320.0, 0, 639.5], [0, 320, 399.5], [0, 0, 1]])
    return replace(base, intrinsics=k, distortion=(0.05, -0.01, 0.002, -0.001), distortion_model="equidistant")


def measure(*cameras, grid=GRID, size=(704, 256), margin=768 / 704):
    rig = Rig(cameras)
    fits = list(fit_images(rig, size, margin).values())
    return measure_coverage(rig, fits, grid, LIFT.depth_min, LIFT.depth_max)


def remarks(*cameras):
    return find_remarks(measure(*cameras))


def test_seen_cells_lie_in_front_of_the_lens_within_the_depths():
    grid = BevGrid(-20, 20, -20, 20, 1.0)
    rig = Rig((camera(width=160, height=90, view=90.0, at=(0, 0, 1.5)),))
    fits = list(fit_images(rig, (64, 32), 1.0).values())
    (view,) = measure_coverage(rig, fits, grid, 1.0, 15.0)
    x, y = np.meshgrid(*grid.centres())
    within = (x >= 1.0) & (x <= 15.0)
    assert not view.seen[~within].any()
    assert not view.seen[np.abs(y) > x + 0.1].any()
    bottom = 1.5 * 80 / (89.5 - 44.5)  # metres ahead at which the lowest row meets the ground
    assert not view.seen[x < bottom - 0.1].any()
    assert view.seen[within & (np.abs(y) < x - 0.1) & (x > bottom + 0.1)].all()
    assert (view.nearest, view.farthest) == (3.5, 14.5)
    assert view.rows == (10, 90)
    assert np.isclose(view.share, view.seen.mean())


def test_what_a_camera_sees_turns_with_it():
    ahead, back = measure(camera("a", at=(0, 0, 1.5)), camera("b", at=(0, 0, 1.5), yaw=180))
    assert np.array_equal(ahead.seen, back.seen[:, ::-1][::-1])


@pytest.mark.parametrize("distortion", [(-0.33, 0.12, 0.0, 0.0, -0.02), (0.3, 0.1, 0.0, 0.0)])
def test_cells_that_only_black_pixels_show_are_not_seen(distortion):
    plain, lens = measure(camera("a", view=110), camera("b", view=110, distortion=distortion))
    assert lens.seen.sum() <= plain.seen.sum()
    assert (lens.seen.sum() < plain.seen.sum()) == (distortion[0] > 0)


def test_the_share_of_four_fisheyes_covers_all_sides():
    views = measure(*(fisheye(f"f{yaw}", yaw=yaw, pitch=30, at=(0, 0, 1.0)) for yaw in (0, 90, 180, 270)))
    x, y = np.meshgrid(*GRID.centres())
    seen = np.any([view.seen for view in views], axis=0)
    assert seen[(np.hypot(x, y) > 4) & (np.hypot(x, y) < 50)].all()
    assert all(0.2 < view.share < 0.5 for view in views)


ORDINARY = st.builds(
    lambda count, size, view, height, pitch, spread, lens: [
        camera(
            f"camera{i}",
            *size,
            view,
            at=(spread * np.cos(i * 2 * np.pi / count), spread * np.sin(i * 2 * np.pi / count), height),
            yaw=i * 360 / count,
            pitch=pitch,
            distortion=lens,
        )
        for i in range(count)
    ],
    count=st.integers(1, 8),
    size=st.sampled_from(
        [(1920, 1080), (1600, 900), (1280, 720), (640, 480), (1600, 1200), (2048, 1536), (1920, 1200)]
    ),
    view=st.floats(50, 110),
    height=st.floats(1.2, 3.0),
    pitch=st.floats(-3, 3),
    spread=st.floats(0.3, 6),
    lens=st.sampled_from([(), (-0.2, 0.05, 0.0, 0.0, 0.0)]),
)


@settings(max_examples=60)
@given(ORDINARY)
def test_an_ordinary_rig_gives_no_remark(cameras):
    assert remarks(*cameras) == []


def test_the_rig_of_nuscenes_gives_no_remark():
    for width, height in ((1600, 900), (800, 450)):
        rig = [Camera(c.channel, width, height, c.intrinsics(width, height), c.ego_T_cam) for c in nuscenes.CAMERAS]
        assert remarks(*rig) == []


@settings(max_examples=25)
@given(st.floats(0.5, 1.5), st.floats(0, 60))
def test_surround_fisheyes_give_no_remark(height, pitch):
    assert (
        remarks(*(fisheye(f"f{yaw}", yaw=yaw, pitch=pitch, at=(0, yaw / 90, height)) for yaw in (0, 90, 180, 270)))
        == []
    )


def test_a_tele_and_a_wide_camera_may_share_a_pose():
    assert remarks(camera("wide", view=100), camera("tele", view=50)) == []


BODY = np.array([[1.0, 0, 0, 1.5], [0, 1, 0, 0], [0, 0, 1, 1.5], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([camera(ego_T_cam=BODY)], "front sees 0 of the 40000 cells: it looks 90 degrees up, is its frame an optical"),
        ([camera(pitch=-40)], "front sees 0 of the 40000 cells: it looks 40 degrees up"),
        ([camera(roll=180)], "front has an image turned by 180 degrees: is its frame an optical frame"),
        ([camera(roll=90)], "front has an image turned by 90 degrees"),
        ([camera(at=(1700, 16, 1510))], "front lies 1700 m from the vehicle: is its translation in millimetres?"),
        ([camera(at=(170, 2, 151))], "front lies 170 m from the vehicle: is its translation in centimetres?"),
        ([camera(at=(0, 0, 1510))], "front lies 1510 m above the ground: is its translation in millimetres?"),
        ([camera(at=(0, 0, 100))], "front lies 100 m above the ground"),
        ([camera(at=(600, 1600, 1.5))], "front lies 1709 m from the vehicle: is the base frame the vehicle's"),
        ([camera(at=(0, 0, -0.4))], "front lies 0.4 m under the ground: z = 0"),
        ([camera(at=(0, 0, 0))], "front lies on the ground: z = 0"),
        ([camera(), camera("copy")], "front and copy have one pose"),
        ([fisheye("a", pitch=20), fisheye("b", pitch=20)], "a and b have one pose"),
        (
            [camera(width=640, height=360, intrinsics=camera().intrinsics)],
            r"front has its principal point \(800, 450\)",
        ),
        ([camera(width=1024, height=1024, view=90)], "front shows the network rows 683 to 1023 of its 1024x1024 image"),
        ([camera(width=1080, height=1920, view=60)], "front shows the network rows 1560 to 1919 of its 1080x1920"),
        ([camera(width=1280, height=1024, view=90, pitch=5)], "front shows the network rows 597 to 1023"),
        ([camera(width=1600, height=1200, pitch=7, at=(0, 0, 1))], "front shows the network rows 667 to 1199"),
        ([camera(crop_bottom=400)], "front shows the network rows 0 to 399 of its 1600x900 image, no ground$"),
        ([camera(pitch=30)], "front shows the network rows 367 to 899 of its 1600x900 image, ground from"),
    ],
)
def test_what_no_vehicle_has_is_said_once(cameras, message):
    found = remarks(*cameras)
    assert len(found) == 1
    assert re.match(message, found[0])


@pytest.mark.parametrize(
    "changes", [{"width": 1024, "height": 1024, "view": 90}, {"width": 1080, "height": 1920, "view": 60}, {"pitch": 30}]
)
def test_the_crop_that_a_remark_offers_shows_far_more_ground(changes):
    before = camera(**changes)
    (remark,) = remarks(before)
    bottom = int(remark.partition("crop_bottom: ")[2].split()[0])
    (view,) = measure(replace(before, crop_bottom=bottom))
    assert view.farthest > 3 * measure(before)[0].farthest
    assert view.seen.sum() > 3 * measure(before)[0].seen.sum()
    assert remarks(replace(before, crop_bottom=bottom)) == []


@settings(max_examples=60)
@given(
    st.builds(
        camera,
        width=st.integers(300, 4000),
        height=st.integers(300, 4000),
        view=st.floats(5, 160),
        at=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
        yaw=st.floats(-180, 180),
        pitch=st.floats(-90, 90),
        roll=st.floats(-180, 180),
        distortion=st.sampled_from([(), (-0.3, 0.1, 0.0, 0.0), (9.0, 9.0, 3.0, 3.0)]),
    )
)
def test_any_camera_can_be_measured_and_described(any_camera):
    (view,) = measure(any_camera)
    assert 0 <= view.share <= 1
    assert view.describe()
    assert (view.seen <= view.whole).all()
    first, end = view.rows
    assert 0 <= first <= end <= any_camera.height
    assert len(find_remarks([view])) <= 1
