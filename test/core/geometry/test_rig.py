from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert (a.name, a.width, a.height, a.crop_bottom) == (b.name, b.width, b.height, b.crop_bottom)
    assert a.distortion_model == b.distortion_model
    np.testing.assert_allclose(a.intrinsics, b.intrinsics)
    np.testing.assert_allclose(a.ego_T_cam, b.ego_T_cam, atol=1e-12)
    np.testing.assert_allclose(a.distortion, b.distortion)


def test_a_saved_rig_loads_as_it_was(tmp_path):
    turned = rigid((0, 1, 2), (0.1, 0.2, 0.3, 0.4))
    fisheye = camera("c", distortion=(0.1, -0.02, 1e-6, 0.0), distortion_model="equidistant", crop_bottom=500)
    rig = Rig((camera("b"), camera("a", distortion=(), ego_T_cam=turned), fisheye))
    rig.save(tmp_path / "rig.yaml")
    loaded = Rig.load(tmp_path / "rig.yaml")
    assert loaded.names == ("b", "a", "c")
    for a, b in zip(loaded.cameras, rig.cameras, strict=True):
        assert_same(a, b)


def test_the_key_tells_calibrations_apart():
    rig = Rig((camera("a"), camera("b")))
    assert rig.key() == Rig((camera("a"), camera("b"))).key()
    hash(rig.key())
    moved = rigid((1, 0, 1.5001), (0.5, -0.5, 0.5, -0.5))
    others = [{"width": 801}, {"ego_T_cam": moved}, {"distortion": ()}, {"crop_bottom": 500}]
    others.append({"distortion": (0.0,) * 4, "distortion_model": "equidistant"})
    for other in (camera("c"), *(camera("b", **changes) for changes in others)):
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
        ({"ego_T_cam": np.diag([-1.0, 1, 1, 1])}, "a reflection"),
        ({"ego_T_cam": rigid((0, 0, 1e8), (1, 0, 0, 0))}, "the translation of ego_T_cam is 1e.08 m long"),
        ({"width": 40000}, "image size 40000x600 is beyond 32767 pixels a side"),
        ({"intrinsics": INTRINSICS.T}, "need the form"),
        ({"intrinsics": INTRINSICS * (1e9, 1e9, 1)}, "need the form|not pixels"),
        ({"distortion": (0.1,) * 6}, "6 coefficients, plumb_bob takes 4, 5, 8, 12 or 14"),
        ({"distortion": (np.nan,) * 5}, "not finite"),
        ({"distortion": (), "distortion_model": "equidistant"}, "0 coefficients, equidistant takes 4"),
        ({"distortion_model": "mei"}, "'mei' is not one of"),
        ({"distortion": (-1e9, 0.0, 0.0, 0.0)}, "distortion .* folds the middle of the image"),
        ({"distortion": (-9.0, 0.0, 0.0, 0.0), "distortion_model": "equidistant"}, "folds the middle of the image"),
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


def dump(**changes):
    return yaml.safe_dump({"cameras": {"left": _entry(**changes)}})


def refuse(tmp_path, content) -> str:
    path = tmp_path / "rig.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BridgeTAError) as error:
        Rig.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cameras: [", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("cameras: {a: 2001-99-99}", "is not YAML"),
        ("cameras:\n\tleft: 3", r"is not YAML \(line 2: found character '\\t'"),
        ("image_width: 640\ncamera_matrix: {rows: 3}", "is one camera's file of camera_calibration"),
        ("- 1", "has no mapping 'cameras'"),
        ("", "has no mapping 'cameras'"),
        ("cameras: 3", "has no mapping 'cameras' of names"),
        ("cameras: [{name: left}]", "not a list|but a list of 1"),
        ("cameras:", "null"),
        ("cameras: {}", "lists no camera"),
        ("cameras: {left: {}}\nvehicle: 3", "unknown key 'vehicle'"),
        ("cameras: {left: 3}", "camera left: needs keys such as width"),
        ("cameras: {off: {}}", "a camera's name is False in YAML: write it in quotes"),
        ("cameras: {left: {}, left: {}}", "line 1: 'left' is there twice"),
        ("cameras: {left: {width: 1, width: 2}}", "'width' is there twice"),
    ],
)
def test_a_file_that_is_no_rig_is_named(tmp_path, content, message):
    assert re.search(message, refuse(tmp_path, content))


@pytest.mark.parametrize("key", ["width", "height", "intrinsics", "translation", "rotation"])
def test_a_missing_key_is_named_with_its_camera(tmp_path, key):
    assert f"camera left: has no '{key}'" in refuse(tmp_path, dump(**{key: None}))


@pytest.mark.parametrize("key", ["width", "height", "intrinsics", "translation", "rotation", "distortion"])
@pytest.mark.parametrize(
    "value", ["", "~", "wide", "true", "{x: 1}", "[[]]", "[1, null, 3]", "[.nan, 0, 0, 0]", "1e400"]
)
def test_a_value_of_a_wrong_type_is_named_with_camera_and_key(tmp_path, key, value):
    lines = yaml.safe_dump(_entry(**{key: None}), default_flow_style=True, width=1000).strip().strip("{}")
    message = refuse(tmp_path, f"cameras:\n  left: {{{lines}, {key}: {value}}}")
    assert f"camera left: {key} " in message


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("distorsion", "distortion"),
        ("Distortion", "distortion"),
        ("D", "distortion"),
        ("dist_coeffs", "distortion"),
        ("distorsion_model", "distortion_model"),
        ("K", "intrinsics"),
        ("camera_matrix", "intrinsics"),
        ("intrinsic", "intrinsics"),
        ("rotations", "rotation"),
        ("quaternion", "rotation"),
        ("position", "translation"),
        ("image_width", "width"),
        ("heigth", "height"),
    ],
)
def test_a_misspelt_key_is_named_with_what_was_meant(tmp_path, misspelt, meant):
    message = refuse(tmp_path, yaml.safe_dump({"cameras": {"left": {**_entry(), misspelt: [0]}}}))
    assert f"camera left: unknown key '{misspelt}' (did you mean {meant}?)" in message


def test_a_key_without_any_likeness_is_answered_by_the_list(tmp_path):
    message = refuse(tmp_path, yaml.safe_dump({"cameras": {"left": {**_entry(), "xyzzy": 1}}}))
    assert "unknown key 'xyzzy' (the keys are width, height, intrinsics" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation": [0, 0, 0, 0]}, "rotation .* is not a rotation"),
        ({"rotation": [1, 1, 1, 1]}, "rotation .* has length 1, this one 2"),
        ({"rotation": [0.0, 0.0, 1.57]}, "rotation has 3 numbers, perhaps roll, pitch and yaw"),
        ({"rotation": np.eye(3).tolist()}, "rotation looks like a matrix"),
        ({"rotation": np.eye(3).ravel().tolist()}, "rotation looks like a matrix"),
        ({"rotation": np.eye(4).tolist()}, "rotation looks like a matrix"),
        (
            {"rotation": {"w": 1, "x": 0, "y": 0, "z": 0}},
            r"rotation is a mapping of w, x, y, z: write .*\[w, x, y, z\]",
        ),
        ({"translation": {"x": 1, "y": 0, "z": 0}}, r"translation is a mapping of x, y, z: write \[x, y, z\]"),
        ({"translation": ["1,70", 0, 1]}, r"translation holds the text '1,70': decimals take a point, 1\.70"),
        ({"translation": [1, 70, 0, 16]}, "translation has 4 numbers, .*decimals take a point, not a comma"),
        ({"translation": ["1.7", 0, 1]}, "translation holds the text '1.7', not a number"),
        ({"translation": [1, 2]}, "translation has 2 numbers"),
        ({"translation": [True, 0, 1]}, "translation holds the truth value true"),
        ({"width": 800.5}, "width is 800.5, not a whole number"),
        ({"width": -800}, "width is -800"),
        ({"height": 0}, "height is 0"),
        ({"width": "800 px"}, "width is the text '800 px'"),
        ({"intrinsics": INTRINSICS.ravel().tolist()}, "intrinsics are 9 numbers: put them into rows"),
        ({"intrinsics": [800, 810, 400, 300]}, "intrinsics are 4 numbers, perhaps fx, fy, cx, cy"),
        ({"intrinsics": INTRINSICS[:2].tolist()}, "intrinsics have 2 rows"),
        ({"intrinsics": INTRINSICS.T.tolist()}, "intrinsics are "),
        ({"intrinsics": np.diag([0.0, 800, 1]).tolist()}, "intrinsics are .* without a positive focal length"),
        ({"intrinsics": np.diag([0.8, 0.8, 1]).tolist()}, "intrinsics with a focal length of 0.8 px .*normalised"),
        ({"distortion": [0.1]}, "distortion has 1 coefficients, plumb_bob takes 4, 5, 8, 12 or 14"),
        ({"distortion": [[0.1, 0, 0, 0]]}, "distortion is a list of lists"),
        ({"distortion_model": "equidistant"}, "distortion has 0 coefficients, equidistant takes 4"),
        ({"distortion_model": "equidistant", "distortion": [0] * 5}, "distortion has 5 coefficients, equidistant"),
        (
            {"distortion_model": "kannala"},
            "distortion model 'kannala' is not one of plumb_bob, rational_polynomial, equ",
        ),
        ({"distortion_model": 3}, "distortion_model is 3, not a name"),
        ({"crop_bottom": 601}, "crop_bottom 601 is not a row of an image 600 px high"),
    ],
)
def test_a_likely_mistake_is_named_with_camera_and_key(tmp_path, changes, message):
    assert re.search(f"camera left: {message}", refuse(tmp_path, dump(**changes)))


def test_numbers_may_be_whole_or_have_exponents(tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(
        "cameras: {left: {width: 800.0, height: 600, intrinsics: [[8e2, 0, 400], [0, 800, 3.e2], [0, 0, 1]], "
        "translation: [1e-5, 0, 1], rotation: [0.71, 0, 0, 0.71], distortion: [-3.1e-1, 0, 0, 0]}}"
    )
    left = Rig.load(path).cameras[0]
    assert (left.width, left.intrinsics[0, 0], left.ego_T_cam[0, 3], left.distortion[0]) == (800, 800, 1e-5, -0.31)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(st.sampled_from([*_entry(), "cameras", "x"]), inner, max_size=7)
        ),
    )
)
def test_any_yaml_is_a_rig_or_our_error(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rig.yaml"
        path.write_text(yaml.safe_dump({"cameras": {"left": content}}))
        with suppress(BridgeTAError):
            Rig.load(path)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(_entry())),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=5),
    ),
)
def test_any_value_of_a_key_is_taken_or_named(key, value):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rig.yaml"
        path.write_text(yaml.safe_dump({"cameras": {"left": {**_entry(), key: value}}}))
        problem = ""
        try:
            Rig.load(path)
        except BridgeTAError as error:
            problem = str(error)
    words = {"width": "image", "height": "image"}
    assert not problem or re.search(f"camera left: .*({key}|{words.get(key, key)})", problem)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "rig.yaml").write_bytes("cameras: {}".encode("utf-16"))
    with pytest.raises(BridgeTAError, match=r"rig.yaml: is not text in UTF-8"):
        Rig.load(tmp_path / "rig.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BridgeTAError, match=r"nowhere.yaml: cannot be read"):
        Rig.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "cameras: {a: " + "[" * 1000])
def test_a_rig_file_that_nests_without_end_is_refused(tmp_path, text):
    (tmp_path / "rig.yaml").write_text(text)
    with pytest.raises(BridgeTAError, match=r"is not YAML .*nested too deeply"):
        Rig.load(tmp_path / "rig.yaml")


@pytest.mark.parametrize("size", [(10, 30_000), (30_000, 10), (2**31, 2**31), (8192, 8192), (17, 1)])
def test_an_image_size_that_no_camera_has_is_refused(size):
    with pytest.raises(BridgeTAError, match=f"image size {size[0]}x{size[1]} is (beyond|no camera's)"):
        Camera("a", *size, np.diag([1e4, 1e4, 1]), np.eye(4))


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "9" * 5000, ":".join(["59"] * 9000), "9" * 400])
def test_a_number_of_thousands_of_digits_is_one_clear_error(tmp_path, number):
    assert len(refuse(tmp_path, dump(width=4242).replace("4242", number))) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("line", ["{name}: &{name} [{all}]", "{name}: &{name} {{<<: [{all}]}}"])
def test_a_rig_file_of_aliases_of_aliases_is_refused(tmp_path, line):
    text = "a: &a {x: 1, y: 2}\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True):
        text += line.format(name=name, all=", ".join([f"*{before}"] * 10)) + "\n"
    assert "more than 300,000 values" in refuse(tmp_path, text)


def test_cameras_may_share_a_calibration_by_an_alias(tmp_path):
    path = tmp_path / "rig.yaml"
    entry = yaml.safe_dump(_entry(), default_flow_style=True, width=1000).strip()
    path.write_text(f"cameras:\n  left: &left {entry}\n  right: {{<<: *left, translation: [0, 1, 2]}}\n")
    left, right = Rig.load(path).cameras
    np.testing.assert_array_equal(left.intrinsics, right.intrinsics)
    assert right.ego_T_cam[:3, 3].tolist() == [0, 1, 2]


def test_a_rig_of_hundreds_of_cameras_is_refused():
    with pytest.raises(BridgeTAError, match="a rig of 65 cameras is beyond 64"):
        Rig(tuple(camera(str(i)) for i in range(65)))
