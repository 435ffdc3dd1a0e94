"""Annotated boxes: those of the devkit, and wire frames that fit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.boxes import Box, read_boxes


def test_the_boxes_of_a_sample_are_the_devkit_s(synthetic_root: Path) -> None:
    from nuscenes.nuscenes import NuScenes

    nusc = NuScenes("v1.0-mini", str(synthetic_root), verbose=False)
    sample = nusc.sample[2]
    boxes = read_boxes(synthetic_root, "v1.0-mini", sample["token"])
    expected = [nusc.get_box(token) for token in sample["anns"]]
    assert len(boxes) == len(expected) > 5
    by_place = {tuple(np.round(box.center, 6)): box for box in expected}
    for box in boxes:
        same = by_place[tuple(np.round(box.global_T_box[:3, 3], 6))]
        assert box.category == same.name
        corners = np.unique(np.round(np.concatenate(box.edges()), 5), axis=0)
        np.testing.assert_allclose(corners, np.unique(np.round(same.corners().T, 5), axis=0), atol=2e-5)


def test_the_cross_marks_the_front() -> None:
    box = Box("vehicle.car", rigid((0, 0, 1), (1, 0, 0, 0)), (2.0, 4.0, 1.5))
    for diagonal in box.edges()[-2:]:
        np.testing.assert_allclose(diagonal[:, 0], 2.0)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match=r"sample_annotation\.json: table is missing"):
        read_boxes(tmp_path, "v1.0-mini", "any")
