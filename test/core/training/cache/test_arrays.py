"""Arrays on disk."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import numpy as np
import pytest

from bridgeta_core.training.cache import arrays as cache_arrays
from bridgeta_core.training.cache.arrays import Arrays, ArrayWriter, read_seconds
from bridgeta_core.utils.arrays import save_array
from bridgeta_core.utils.errors import BridgeTAError


def test_rows_are_read_as_written(tmp_path):
    random = np.random.default_rng(0)
    values = [(random.random((3, 2), dtype=np.float32), random.integers(0, 9, 4, dtype=np.uint8)) for _ in range(3)]
    rows = [dict(zip("ab", value, strict=True)) for value in values]
    points = [random.random((n, 5), dtype=np.float32) for n in (4, 0, 7)]
    with ArrayWriter(tmp_path, 3) as writer:
        for row, value in zip(rows, points, strict=True):
            writer.write(row)
            writer.write_ragged("points", value)
    arrays = Arrays(tmp_path)
    arrays.check(["a", "b", "points"], 3)
    for i, row in enumerate(rows):
        for name, value in {**row, "points": points[i]}.items():
            assert arrays.read(name, i).dtype == value.dtype
            assert np.array_equal(arrays.read(name, i), value)


def test_it_is_known_how_long_arrays_took_to_write(tmp_path, monkeypatch):
    clock = iter((100.0, 102.5))
    monkeypatch.setattr(cache_arrays.time, "monotonic", lambda: next(clock))
    with ArrayWriter(tmp_path, 1) as writer:
        writer.write({"a": np.ones(2)})
    assert read_seconds(tmp_path) == 2.5
    path = tmp_path / "seconds.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert math.isnan(read_seconds(tmp_path))
    path.unlink()
    assert math.isnan(read_seconds(tmp_path))
    Arrays(tmp_path).check(["a"], 1)  # a cache of before is as good


def test_a_damaged_array_is_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(BridgeTAError, match="Remove this folder"):
        Arrays(tmp_path)


def test_an_array_that_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    save_array(tmp_path / "a.npy", np.ones(2))

    def refuse(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(cache_arrays, "map_array", refuse)
    with pytest.raises(BridgeTAError) as raised:
        Arrays(tmp_path)
    assert str(raised.value) == f"{tmp_path / 'a.npy'}: cannot be read: Too many open files"


@pytest.fixture
def written(tmp_path) -> Path:
    """Two rows of `a` and of the ragged `points`, none of them zero."""
    with ArrayWriter(tmp_path, 2) as writer:
        for row in range(2):
            writer.write({"a": np.full((3, 2), 1 + row, np.uint8)})
            writer.write_ragged("points", np.full((4, 5), 1 + row, np.float32))
    return tmp_path


@pytest.mark.parametrize("name", ["a", "points"])
def test_a_row_that_was_zeroed_is_named_and_the_others_are_read(written, name):
    path = written / f"{name}.npy"
    content = path.read_bytes()
    half = len(Arrays(written).read(name, 1).tobytes())
    path.write_bytes(content[:-half] + bytes(half))
    arrays = Arrays(written)
    assert arrays.read(name, 0).all()
    with pytest.raises(BridgeTAError, match=rf"{path}: is damaged in row 1\. Remove {written}"):
        arrays.read(name, 1)


def test_a_header_that_changed_is_damage(written):
    path = written / "a.npy"
    path.write_bytes(path.read_bytes().replace(b"(2, 3, 2)", b"(2, 2, 3)"))
    with pytest.raises(BridgeTAError, match="is damaged in row 0"):
        Arrays(written).read("a", 0)


@pytest.mark.parametrize("name", ["a", "a_crc32", "points", "points_ends", "points_crc32"])
def test_a_missing_array_is_damage(written, name):
    (written / f"{name}.npy").unlink()
    with pytest.raises(BridgeTAError, match="is missing"):
        Arrays(written).check(["a", "points"], 2)
