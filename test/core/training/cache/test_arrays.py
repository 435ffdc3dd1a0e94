"""Arrays on disk."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_core.training.cache.arrays import ArrayWriter, open_arrays, read_ragged
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
    arrays = open_arrays(tmp_path)
    for i, row in enumerate(rows):
        for name, value in row.items():
            assert arrays[name].dtype == value.dtype
            assert np.array_equal(arrays[name][i], value)
        assert np.array_equal(read_ragged(arrays, "points", i), points[i])


def test_a_damaged_array_is_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(BridgeTAError, match="Remove this folder"):
        open_arrays(tmp_path)
