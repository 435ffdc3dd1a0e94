"""Arrays on disk: written whole or with an error, and mapped as they were."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bridgeta_core.utils.arrays import map_array, save_array

HEADER = 128  # bytes of a .npy file before the numbers


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file is longer than a header and a bit: the same failure as on a disk that is full at that place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER + 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("count", [11, 500, 10_000, 100_000])
def test_an_array_that_finds_no_room_is_an_error(tmp_path: Path, small_files: None, count: int) -> None:
    with pytest.raises(OSError, match="File too large"):
        save_array(tmp_path / "a.npy", np.ones(count, np.uint8))


@given(array=arrays(st.sampled_from([np.uint8, np.float32, np.int64]), st.tuples(st.integers(1, 5), st.integers(0, 7))))
def test_an_array_is_what_it_was(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    save_array(path, array)
    np.testing.assert_array_equal(np.load(path), array)
    if array.size:
        np.testing.assert_array_equal(map_array(path), array)


def test_an_array_with_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_array(tmp_path / "a.npy", np.array([{}]))
