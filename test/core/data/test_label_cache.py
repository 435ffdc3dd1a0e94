from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LabelConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-30, 30, -20, 20, 1.0)


def dataset(root, folder, grid=GRID, augment=None, cameras=("CAM_FRONT",), **labels):
    settings = LabelConfig(cache=None if folder is None else str(folder), **labels)
    image = ImageConfig(width=48, height=32, margin=1.0)
    return FrameDataset(NuScenesDataset(root, "v1.0-mini"), "all", cameras, image, grid, augment, labels=settings)


def all_labels(data):
    return np.stack([data.read_labels(i)[0] for i in range(len(data))])


@pytest.fixture
def never_rasterised(monkeypatch):
    def forbidden(*_):
        raise AssertionError("rasterised again")

    return lambda: monkeypatch.setattr(MapRaster, "rasterise", forbidden)


@pytest.mark.parametrize("grid", [GRID, BevGrid(-5, 6, -3, 4, 1.0)], ids=["whole bytes", "a rest of bits"])
@pytest.mark.parametrize("mode", ["compatible", "exact"])
def test_kept_labels_are_those_of_the_map(small_root, tmp_path, never_rasterised, mode, grid):
    fresh = dataset(small_root, None, grid, mode=mode)
    known = fresh.read_labels(3)[1]
    built = all_labels(dataset(small_root, tmp_path, grid, mode=mode))
    assert built.any()
    np.testing.assert_array_equal(built, all_labels(fresh))
    assert len(list(tmp_path.iterdir())) == 2  # one file per scene
    never_rasterised()
    again = dataset(small_root, tmp_path, grid, mode=mode)
    np.testing.assert_array_equal(all_labels(again), built)
    np.testing.assert_array_equal(again.read_labels(3)[1], known)


def test_frames_that_are_not_augmented_take_them(small_root, tmp_path, never_rasterised):
    plain = dataset(small_root, None)
    all_labels(dataset(small_root, tmp_path))
    never_rasterised()
    for augment in (None, Augment(AugmentConfig(flip=False, colour=0.3))):
        data = dataset(small_root, tmp_path, augment=augment)
        frames = [data[i] for i in range(4)]
    with pytest.raises(AssertionError, match="rasterised again"):
        plain[0]
    assert all(frame.labels.dtype == torch.uint8 for frame in frames)


def test_augmented_frames_have_labels_of_their_own(small_root, tmp_path):
    augment = Augment(AugmentConfig(rotate=30, scale=0.2, translate=1.0, colour=0.0))
    fresh, kept = (dataset(small_root, folder, augment=augment) for folder in (None, tmp_path))
    for i in range(4):
        assert torch.equal(kept[i].labels, fresh[i].labels)


@pytest.mark.parametrize(
    ("changed", "files"),
    [
        ({"grid": BevGrid(-30, 30, -20, 20, 0.5)}, 4),
        ({"mode": "exact"}, 4),
        ({"line_width": 2.0}, 2),  # means nothing in mode compatible
    ],
)
def test_labels_of_other_settings_are_kept_beside_the_rest(small_root, tmp_path, changed, files):
    for settings in ({}, changed):
        np.testing.assert_array_equal(
            all_labels(dataset(small_root, tmp_path, **settings)), all_labels(dataset(small_root, None, **settings))
        )
    assert len(list(tmp_path.iterdir())) == files


def test_lines_of_another_width_are_other_labels(small_root, tmp_path):
    thin, wide = (all_labels(dataset(small_root, tmp_path, mode="exact", line_width=w)) for w in (1.0, 3.0))
    assert wide.sum() > thin.sum()


def test_a_map_that_changed_is_rasterised_again(broken_root, map_sheet, tmp_path):
    before = all_labels(dataset(broken_root, tmp_path / "kept"))
    sheet = map_sheet()
    sheet.polygon("walkway", [(-500, -500), (500, -500), (500, 500), (-500, 500)])
    sheet.write(broken_root, "boston-seaport")
    after = all_labels(dataset(broken_root, tmp_path / "kept"))
    np.testing.assert_array_equal(after[:2], before[:2])
    assert after[2:, 2].all()
    os.utime(broken_root / "maps" / "expansion" / "boston-seaport.json", (1, 1))
    all_labels(dataset(broken_root, tmp_path / "kept"))
    assert len(list((tmp_path / "kept").iterdir())) == 4


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


def _other_rows(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros((1, 7), dtype=np.uint8))


def _rubbish(path):
    path.write_bytes(b"rubbish" * 100)


def _zeroed(path):
    content = path.read_bytes()
    path.write_bytes(content[:-300] + bytes(300))


def _one_bit(path):
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncated, _empty, _other_rows, _rubbish, _zeroed, _one_bit])
def test_a_broken_file_is_written_again_with_a_warning(small_root, tmp_path, damage, caplog):
    good = all_labels(dataset(small_root, tmp_path))
    broken = sorted(tmp_path.iterdir())[0]
    damage(broken)
    np.testing.assert_array_equal(all_labels(dataset(small_root, tmp_path)), good)
    assert [record.message.split(" is broken")[0] for record in caplog.records] == [str(broken)]
    caplog.clear()
    np.testing.assert_array_equal(all_labels(dataset(small_root, tmp_path)), good)
    assert not caplog.records


def test_several_processes_may_build_it_at_once(small_root, tmp_path):
    data = dataset(small_root, tmp_path, cameras=())
    expected = all_labels(dataset(small_root, None))
    loader = DataLoader(_Labels(data), batch_size=None, num_workers=2, shuffle=True)
    for position, masks in loader:
        np.testing.assert_array_equal(masks, expected[position])
    assert len(list(tmp_path.iterdir())) == 2  # and nothing half-written


class _Labels(torch.utils.data.Dataset):
    def __init__(self, data):
        self._data = data

    def __len__(self):
        return len(self._data)

    def __getitem__(self, position):
        return position, self._data.read_labels(position)[0]


def test_a_loader_process_gets_the_folder_and_not_the_labels(small_root, tmp_path):
    data = dataset(small_root, tmp_path)
    closed = len(pickle.dumps(data._cache))
    expected = all_labels(data)
    assert len(pickle.dumps(data._cache)) == closed
    np.testing.assert_array_equal(all_labels(copy.copy(data)), expected)


def test_a_folder_that_cannot_be_written_is_an_error(small_root, tmp_path):
    (tmp_path / "file").write_text("")
    data = dataset(small_root, tmp_path / "file")
    with pytest.raises(BridgeTAError, match=r"cannot be written .*permissions"):
        data.read_labels(0)


def test_the_name_of_a_scene_does_not_lead_out_of_the_folder(broken_root, tmp_path):
    path = broken_root / "v1.0-mini" / "scene.json"
    path.write_text(path.read_text().replace('"scene-0061"', '"../../../EVIL"'))
    folder = tmp_path / "a" / "b" / "c" / "cache"
    all_labels(dataset(broken_root, folder))
    written = list(tmp_path.rglob("*.npy"))
    assert len(written) == 2
    assert {file.parent for file in written} == {folder}
