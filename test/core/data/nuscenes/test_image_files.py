"""A dataset's images may be of any format, whatever their names; pixels are taken as stored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bridgeta_core.data.check.run import check
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.commands import app

VERSION, SCENE = "v1.0-mini", "scene-0061"
# Orientation 3: turned by 180 degrees.
EXIF = bytes.fromhex("ffe1002245786966000049492a0008000000010012010300010000000300000000000000")


def images(root):
    return sorted(root.glob("s*/CAM_FRONT/*"))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_every_command_takes_images_of_any_format(broken_root, tmp_path, suffix):
    before = {path: path.read_bytes() for path in images(broken_root)}
    for path, data in before.items():
        path.write_bytes(cv2.imencode(suffix, cv2.imdecode(np.frombuffer(data, np.uint8), 1))[1].tobytes())
    assert check(broken_root, deep=True, jobs=1).exit_code == 0
    record = NuScenesDataset(broken_root, VERSION)[0].records["CAM_FRONT"]
    expected = cv2.imdecode(np.frombuffer(record.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(record.read_image()[..., ::-1], expected)
    arguments = ["bag", str(broken_root), str(tmp_path / "bag"), "--scene", SCENE, "--version", VERSION]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with open_bag(tmp_path / "bag") as bag:
        for connection, _, data in bag.raw({"/cam_front/image/compressed"}):
            message = bag.decode(connection, data)
            assert message.format == suffix[1:]
            assert message.data.tobytes() in {path.read_bytes() for path in before}


def test_an_orientation_in_exif_turns_nothing(broken_root):
    record = NuScenesDataset(broken_root, VERSION)[0].records["CAM_FRONT"]
    before = record.read_image()
    data = record.read_bytes()
    record.path.write_bytes(data[:2] + EXIF + data[2:])
    np.testing.assert_array_equal(record.read_image(), before)


def test_an_image_of_another_size_than_the_tables_is_named(broken_root):
    record = NuScenesDataset(broken_root, VERSION)[0].records["CAM_FRONT"]
    cv2.imwrite(str(record.path), np.zeros((18, 32, 3), np.uint8))
    with pytest.raises(BridgeTAError, match="image has 32x18 pixels, its calibration is for 64x36") as error:
        record.read_image()
    assert str(error.value).startswith(str(record.path))
