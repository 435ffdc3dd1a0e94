from __future__ import annotations

import numpy as np
import pytest
import yaml

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError

INTRINSICS = np.array([[800.0, 0, 400], [0, 810, 300], [0, 0, 1]])


def camera(name="front", **changes):
    values = {
        "name": name,
        "width": 800,
        "height": 600,
        "intrinsics": INTRINSICS,
        "ego_T_cam": rigid((1, 0, 1.5), (0.5, -0.5, 0.5, -0.5)),
        "distortion": (-0.1, 0.01, 0.0, 0.0, 0.0),
    }
    return Camera(**values | changes)


def assert_same(a, b):
    assert (a.name, a.width, a.height) == (b.name, b.width, b.height)
    np.testing.assert_allclose(a.intrinsics, b.intrinsics)
    np.testing.assert_allclose(a.ego_T_cam, b.ego_T_cam, atol=1e-12)
    np.testing.assert_allclose(a.distortion, b.distortion)


def test_a_saved_rig_loads_as_it_was(tmp_path):
    rig = Rig((camera("b"), camera("a", distortion=(), ego_T_cam=rigid((0, 1, 2), (0.1, 0.2, 0.3, 0.4)))))
    rig.save(tmp_path / "rig.yaml")
    loaded = Rig.load(tmp_path / "rig.yaml")
    assert loaded.names == ("b", "a")
    for a, b in zip(loaded.cameras, rig.cameras, strict=True):
        assert_same(a, b)


def test_the_key_tells_calibrations_apart():
    rig = Rig((camera("a"), camera("b")))
    assert rig.key() == Rig((camera("a"), camera("b"))).key()
    hash(rig.key())
    moved = rigid((1, 0, 1.5001), (0.5, -0.5, 0.5, -0.5))
    for other in (camera("c"), camera("b", ego_T_cam=moved), camera("b", width=801), camera("b", distortion=())):
        assert Rig((camera("a"), other)).key() != rig.key()


def test_selection_orders_and_names_what_is_missing():
    rig = Rig((camera("a"), camera("b"), camera("c")))
    assert rig.select(("c", "a")).names == ("c", "a")
    with pytest.raises(BridgeTAError, match="no calibration for d; the rig has a, b, c"):
        rig.select(("a", "d"))


@pytest.mark.parametrize("cameras", [(), (camera("a"), camera("a"))])
def test_a_rig_needs_cameras_with_different_names(cameras):
    with pytest.raises(BridgeTAError, match="different names"):
        Rig(cameras)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "image size 0x600 is empty"),
        ({"intrinsics": np.eye(4)}, "3x3 finite numbers"),
        ({"intrinsics": np.diag([0.0, 800, 1])}, "positive focal lengths"),
        ({"intrinsics": INTRINSICS * np.nan}, "3x3 finite numbers"),
        ({"ego_T_cam": np.eye(3)}, "4x4 finite numbers"),
        ({"ego_T_cam": np.diag([2.0, 1, 1, 1])}, "not orthonormal"),
    ],
)
def test_an_impossible_camera_is_refused_by_name(changes, message):
    with pytest.raises(BridgeTAError, match=f"camera front: .*{message}"):
        camera(**changes)


def _entry(**changes):
    entry = {
        "width": 800,
        "height": 600,
        "intrinsics": INTRINSICS.tolist(),
        "translation": [0, 0, 1],
        "rotation": [1, 0, 0, 0],
    }
    return {k: v for k, v in (entry | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cameras: [", "is not YAML"),
        ("- 1", "has no mapping 'cameras'"),
        ("cameras: 3", "has no mapping 'cameras'"),
        (yaml.safe_dump({"cameras": {"left": _entry(rotation=None)}}), "camera left has no 'rotation'"),
        (yaml.safe_dump({"cameras": {"left": _entry(width="wide")}}), "camera left: "),
        (yaml.safe_dump({"cameras": {"left": _entry(rotation=[0, 0, 0, 0])}}), "camera left: .*not a rigid transform"),
        (yaml.safe_dump({"cameras": {"left": _entry(intrinsics=[1, 2])}}), "camera left: "),
        (yaml.safe_dump({"cameras": {}}), "lists no camera"),
    ],
)
def test_a_bad_file_is_named_with_the_camera_and_the_key(tmp_path, content, message):
    path = tmp_path / "rig.yaml"
    path.write_text(content)
    with pytest.raises(BridgeTAError, match=message) as error:
        Rig.load(path)
    assert "rig.yaml" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BridgeTAError, match=r"nowhere.yaml: cannot be read"):
        Rig.load(tmp_path / "nowhere.yaml")
