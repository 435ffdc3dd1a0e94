from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import invert, project, rigid, transform
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.bev import ERROR_COLOURS, HATCH, OPACITIES, tint
from bridgeta_core.view.drawing import (
    NEAR,
    draw_map,
    draw_points,
    draw_wires,
    paint_points,
    project_lines,
)
from bridgeta_core.view.sample import Scenery, arrange, draw_sample, write_sample_picture

INTRINSICS = np.array([[80.0, 0, 63.5], [0, 80, 31.5], [0, 0, 1]])


def camera(name="front", azimuth=0.0):
    turn = rigid((0, 0, 0), (np.cos(np.radians(azimuth) / 2), 0, 0, np.sin(np.radians(azimuth) / 2)))
    return Camera(name, 128, 64, INTRINSICS, turn @ rigid((1, 0, 1.5), (0.5, -0.5, 0.5, -0.5)))


def scenery(cameras, **more):
    images = [np.full((c.height, c.width, 3), 90, dtype=np.uint8) for c in cameras]
    return Scenery(Rig(tuple(cameras)), images, BevGrid(-20, 40, -15, 15, 0.5), **more)


def colour(name):
    return CLASSES[CLASS_NAMES.index(name)].colour


coordinates = st.tuples(st.floats(-60, 60), st.floats(-60, 60), st.floats(-5, 8))


@settings(max_examples=150)
@given(st.lists(coordinates, min_size=2, max_size=5))
def test_lines_are_drawn_where_they_are_seen_and_nowhere_else(chain):
    """Against projecting many points of the line one by one."""
    view = camera()
    cam_T_ego = invert(view.ego_T_cam)
    segments = project_lines(view, cam_T_ego, [np.array(chain)])
    assert np.isfinite(segments).all()
    assert (segments > -0.5 - 1e-6).all()
    assert (segments < (127.5 + 1e-6, 63.5 + 1e-6)).all()
    shares = np.linspace(0, 1, 200)[:, None]
    dense = np.concatenate([a + shares * (b - a) for a, b in zip(np.array(chain), np.array(chain)[1:], strict=False)])
    pixels, depth = project(INTRINSICS, transform(cam_T_ego, dense))
    seen = pixels[(depth >= NEAR) & (pixels > -0.5).all(axis=1) & (pixels < (127.5, 63.5)).all(axis=1)]
    if len(seen):
        a, b = segments[:, 0], segments[:, 1]
        along = np.clip(((seen[:, None] - a) * (b - a)).sum(-1) / np.maximum(((b - a) ** 2).sum(-1), 1e-12), 0, 1)
        nearest = np.linalg.norm(a + along[..., None] * (b - a) - seen[:, None], axis=-1).min(axis=1)
        assert nearest.max() < 1e-4


def test_a_line_behind_the_camera_is_not_drawn():
    view = camera()
    assert not len(project_lines(view, invert(view.ego_T_cam), [np.array([(-5.0, -9, 0), (-5, 9, 0)])]))
    assert not len(project_lines(view, invert(view.ego_T_cam), []))


@pytest.mark.parametrize("scale", [1, 2])
def test_the_map_is_drawn_at_its_place_in_any_size_of_the_image(scale):
    view = camera()
    image = np.zeros((64 * scale, 128 * scale, 3), np.uint8)
    draw_map(image, view, {"divider": [np.array([(11.0, -20, 0), (11, 20, 0)])]}, thickness=1)
    rows = np.flatnonzero(image.any(axis=(1, 2)))
    # 10 m before the camera and 1.5 m below it: 12 pixels under the middle.
    expected = ((31.5 + 12) + 0.5) * scale - 0.5
    assert abs(rows.mean() - expected) < 0.6
    assert image[:, :, 2].max() > 100


def test_near_points_are_drawn_over_far_ones():
    view = camera()
    image = np.zeros((64, 128, 3), np.uint8)
    ahead = view.ego_T_cam[:3, 3]
    draw_points(image, view, ahead + np.array([(2, 0, 0), (50, 0, 0), (-5, 0, 0)]))
    rows, columns = np.nonzero(image.any(axis=2))
    assert abs(rows.mean() - 31.5) < 0.6
    assert abs(columns.mean() - 63.5) < 0.6
    red, _, blue = image[31, 63].astype(int)
    assert red > blue


def test_boxes_are_drawn_in_cameras_and_around_points_from_above():
    view = camera()
    image = np.zeros((64, 128, 3), np.uint8)
    square = np.array([(12.0, -2, 1.5), (12, 2, 1.5), (12, 2, 3.5), (12, -2, 3.5), (12, -2, 1.5)])
    wires = [((255, 0, 0), [square])]
    draw_wires(image, view, wires)
    rows, columns = np.nonzero(image[..., 0] > 60)
    assert (image[..., 1:] == 0).all()
    # About 11 m before a camera whose axis is 1.5 m high, 100 pixels to a right angle's half.
    assert columns.min() < 63 < columns.max()
    assert rows.max() <= 33
    grid = BevGrid(-20, 20, -20, 20, 0.5)
    above = paint_points(np.zeros((0, 3)), grid, 200, wires)
    red, green, _ = np.moveaxis(above.astype(int), -1, 0)
    v, u = np.argwhere(red > green + 60).T
    assert v.mean() == pytest.approx((20 - 12) / 40 * 200, abs=1.5)
    assert np.ptp(u) == pytest.approx(4 / 40 * 200, abs=2)


def test_points_from_above_have_forward_up_and_left_on_the_left():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    red, green, _ = np.moveaxis(paint_points(np.array([[30.0, 10, 20]]), grid, 240).astype(int), -1, 0)
    # 30 m ahead is 10 m below the top of 60 m; 10 m to the left is 5 m from the left of 30 m.
    ((v, u),) = np.argwhere(red > green + 60)
    assert (v, u) == (pytest.approx(40, abs=1), pytest.approx(20, abs=1))


def test_cameras_stand_as_they_sit_on_the_vehicle():
    azimuths = {"FL": 55, "B": 180, "FR": -55, "BL": 110, "F": 0, "BR": -110}
    rig = Rig(tuple(camera(name, azimuth) for name, azimuth in azimuths.items()))
    rows = [[rig.names[i] for i in row] for row in arrange(rig)]
    assert rows == [["FL", "F", "FR"], ["BL", "B", "BR"]]


@pytest.mark.parametrize("azimuths", [(0,), (180,), (0, 10, 20, 30, 40), (0, 90, 180, 270)])
@pytest.mark.parametrize("everything", [False, True])
def test_a_picture_of_any_number_of_cameras(azimuths, everything):
    cameras = [camera(f"camera {i}", azimuth) for i, azimuth in enumerate(azimuths)]
    bev = np.random.default_rng(0).random((6, 60, 120))
    more = {"points": np.random.default_rng(0).normal(0, 9, (40, 5)), "truth": bev > 0.5, "prediction": bev}
    picture = draw_sample(scenery(cameras, **more if everything else {}), "a title", width=1000)
    assert picture.shape[1] == 1000
    assert picture.dtype == np.uint8
    shown = (picture == 90).all(axis=2).sum()
    assert shown > 10_000 * len(cameras)


def test_the_legend_tells_unknown_classes_from_known_ones():
    known = draw_sample(scenery([camera()]))
    unknown = draw_sample(scenery([camera()], known=(True, False, True, True, True, True)))
    full, hatched = ((picture == colour("ped_crossing")).all(axis=2).sum() for picture in (known, unknown))
    assert 0 < hatched < full / 2


@pytest.mark.parametrize("sample", [None, "3", "scene-0103-0"])
def test_writes_the_picture_of_a_sample(small_root, tmp_path, sample):
    write_sample_picture(small_root, "v1.0-mini", sample, tmp_path / "sample.png")
    picture = cv2.imread(str(tmp_path / "sample.png"))
    assert picture.shape[1] == 1920
    assert [path.name for path in tmp_path.iterdir()] == ["sample.png"]


def test_the_prediction_of_weights_is_drawn_beside_the_truth(small_root, tmp_path, monkeypatch):
    from bridgeta_core.config.experiment import StudentConfig
    from bridgeta_core.deploy import runtime
    from bridgeta_core.deploy.weights import WeightsInfo

    grid = BevGrid(-20, 40, -15, 15, 0.5)
    asked = {}

    class Painter(runtime.Runtime):
        """A runtime that predicts walkways everywhere."""

        def __init__(self, weights):
            self.info = WeightsInfo(StudentConfig(), grid, CLASS_NAMES, ("CAM_FRONT", "CAM_BACK"))
            self.grid, self.image = grid, self.info.model.image

        def infer(self, images, rig):
            asked["shape"], asked["cameras"] = images.shape, rig.names
            values = np.zeros((6, *grid.shape), np.float32)
            values[CLASS_NAMES.index("walkway")] = 1
            return values

    monkeypatch.setattr(runtime, "Runtime", Painter)
    write_sample_picture(small_root, "v1.0-mini", "0", tmp_path / "with.png", weights="any")
    assert asked == {"shape": (2, 256, 704, 3), "cameras": ("CAM_FRONT", "CAM_BACK")}
    picture = cv2.imread(str(tmp_path / "with.png"))[..., ::-1]
    assert (picture == tint(colour("walkway"), OPACITIES[-1])).all(axis=2).sum() > 20_000
    # The map has other classes on top, and the two cameras do not see the sides.
    assert (picture == ERROR_COLOURS["missed"]).all(axis=2).sum() > 50_000
    assert (picture == HATCH[0]).all(axis=2).sum() > 20_000


@pytest.mark.parametrize(
    ("sample", "weights", "message"),
    [("nothing", None, "no sample 'nothing'"), (None, "no-such.safetensors", "no-such.safetensors")],
)
def test_a_wrong_sample_or_weights_leaves_no_picture(small_root, tmp_path, sample, weights, message):
    with pytest.raises(BridgeTAError, match=message):
        write_sample_picture(small_root, "v1.0-mini", sample, tmp_path / "sample.png", weights=weights)
    assert not list(tmp_path.iterdir())


def test_a_picture_can_be_a_jpeg_and_nothing_unknown(small_root, tmp_path):
    write_sample_picture(small_root, "v1.0-mini", None, tmp_path / "sample.jpg")
    assert (tmp_path / "sample.jpg").read_bytes()[:2] == b"\xff\xd8"
    with pytest.raises(BridgeTAError, match=r"sample\.webm: is not a picture.* \.png or \.jpg"):
        write_sample_picture(small_root, "v1.0-mini", None, tmp_path / "sample.webm")
    assert [path.name for path in tmp_path.iterdir()] == ["sample.jpg"]


def test_a_broken_image_is_named_and_leaves_no_picture(broken_root, tmp_path):
    path = next((broken_root / "samples" / "CAM_BACK").glob("scene-0061-0*"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BridgeTAError, match=f"{path.name}: .*truncated"):
        write_sample_picture(broken_root, "v1.0-mini", None, tmp_path / "out" / "sample.png")
    assert not (tmp_path / "out").exists()


def test_lane_dividers_lie_on_the_paint_of_the_real_keyframe(real_root):
    """The brightest columns near each drawn divider are those of its dashes: the median is 5 and 7 pixels away."""
    from bridgeta_core.data.maps.raster import MapRaster
    from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
    from bridgeta_core.geometry.images import decode

    (sample,) = NuScenesDataset(real_root, "v1.0-mini")
    record = sample.records["CAM_FRONT"]
    view = sample.rig(["CAM_FRONT"]).cameras[0]
    cam_T_ego = invert(view.ego_T_cam) @ invert(record.global_T_ego) @ sample.global_T_ego
    lines = MapRaster.load(real_root, sample.location).polylines(sample.global_T_ego, 60)["divider"]
    lanes = [s for s in project_lines(view, cam_T_ego, lines) if np.ptp(s[:, 1]) > 150]  # those of our carriageway
    assert len(lanes) == 2
    brightness = cv2.GaussianBlur(decode(record.read_bytes()).mean(axis=2), (0, 0), 1)
    for (u0, v0), (u1, v1) in lanes:
        offsets = []
        for row in range(int(min(v0, v1)) + 15, int(max(v0, v1))):
            column = u0 + (row - v0) / (v1 - v0) * (u1 - u0)
            reach = 8 + round(0.12 * (row - 490))  # about 60 cm to either side; 490 is the horizon
            places = np.arange(round(column) - reach, round(column) + reach + 1)
            window = brightness[row, places]
            contrast = window.max() - np.median(window)
            if contrast > 40:
                paint = window > np.median(window) + 0.6 * contrast
                offsets.append(places[paint].mean() - column)
        assert len(offsets) > 50  # rows with a dash
        assert abs(np.median(offsets)) < 10
