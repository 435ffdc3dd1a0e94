"""Arrays on disk."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_core.training.cache.arrays import ArrayWriter, build_once, open_arrays, ragged_row
from bridgeta_core.utils.errors import BridgeTAError


def test_rows_come_back_as_they_were_written(tmp_path):
    random = np.random.default_rng(0)
    values = [(random.random((3, 2), dtype=np.float32), random.integers(0, 9, 4, dtype=np.uint8)) for _ in range(3)]
    rows = [dict(zip("ab", value, strict=True)) for value in values]
    points = [random.random((n, 5), dtype=np.float32) for n in (4, 0, 7)]
    with ArrayWriter(tmp_path, 3) as writer:
        for row, value in zip(rows, points, strict=True):
            writer.put(row)
            writer.put_ragged("points", value)
    arrays = open_arrays(tmp_path)
    for i, row in enumerate(rows):
        for name, value in row.items():
            assert arrays[name].dtype == value.dtype
            assert np.array_equal(arrays[name][i], value)
        assert np.array_equal(ragged_row(arrays, "points", i), points[i])


def test_of_two_that_build_the_same_the_first_that_is_done_wins(tmp_path):
    target = tmp_path / "cache" / "x"
    with build_once(target) as slow:
        (slow / "who").write_text("slow")
        with build_once(target) as fast:
            (fast / "who").write_text("fast")
        assert (target / "who").read_text() == "fast"
    assert (target / "who").read_text() == "fast"
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_a_broken_build_leaves_nothing(tmp_path):
    def build() -> None:
        with build_once(tmp_path / "x") as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BridgeTAError, match=r"cannot be written.*data\.cache"), build_once(tmp_path / "file" / "x"):
        pass


def test_a_damaged_array_is_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(BridgeTAError, match="Remove this folder"):
        open_arrays(tmp_path)
