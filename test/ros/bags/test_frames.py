"""Sets of images of a bag: what the replay hands to the network, spread over the recording."""

from __future__ import annotations

import numpy as np
import pytest
from bag_fakes import RIG, FakeRuntime, jpeg, write_bag

from bridgeta_core.geometry.images import fit_images, fit_intrinsics
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.frames import read_bag_frames


def brightness(cycle: int, name: str) -> bytes:
    return jpeg(20 * cycle + (100 if name == "cam_front" else 10))


@pytest.mark.parametrize(("sets", "cycles"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (50, range(6))])
def test_the_sets_are_spread_over_the_bag(tmp_path, sets, cycles):
    frames = read_bag_frames(write_bag(tmp_path / "in", image=brightness), FakeRuntime().info, sets)
    seen = [frame.images.float().mean(dim=(1, 2, 3)).numpy() for frame in frames]
    np.testing.assert_allclose(seen, [[20 * c + 100, 20 * c + 10] for c in cycles], atol=2)


def test_a_frame_has_the_calibration_of_the_bag_and_no_labels(tmp_path):
    frame = read_bag_frames(write_bag(tmp_path / "in", image=brightness), FakeRuntime().info, 1)[0]
    fits = fit_images(RIG, (64, 32), 1.0).values()
    np.testing.assert_allclose(frame.intrinsics, fit_intrinsics(RIG, fits), rtol=1e-6)
    np.testing.assert_allclose(frame.ego_T_cam, [camera.ego_T_cam for camera in RIG.cameras], atol=1e-6)
    assert not frame.known.any()


def test_a_file_that_is_no_bag_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no bag")
    with pytest.raises(BridgeTAError, match="notes"):
        read_bag_frames(tmp_path / "notes.txt", FakeRuntime().info, 1)
