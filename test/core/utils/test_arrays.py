"""Arrays on disk: written whole or with an error, and mapped as they were."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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


def test_what_the_system_refuses_to_map_is_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_array(tmp_path / "a.npy", np.ones(4))
    map_file = torch.from_file

    def open_without_room(name: str, **options: Any) -> torch.Tensor:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            return map_file(name, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(torch, "from_file", open_without_room)
    with pytest.raises(OSError, match=r"Too many open files: '.*a\.npy'") as raised:
        map_array(tmp_path / "a.npy")
    assert raised.value.errno == errno.EMFILE


def test_an_array_with_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_array(tmp_path / "a.npy", np.array([{}]))


_LIMITED = """
import resource, signal
from pathlib import Path
import numpy as np
{first}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**20,) * 2)
signal.alarm(20)
{then}
print(np.linalg.inv(np.eye(2))[0, 0])
"""


def run_limited(first: str, then: str) -> subprocess.CompletedProcess[str]:
    """Run `then` and an inversion where memory is short, which is one that ends."""
    code = _LIMITED.format(first=first, then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_matrices_can_be_inverted_when_memory_has_become_short() -> None:
    done = run_limited("import bridgeta_core.utils.arrays", "")
    assert (done.stdout, done.returncode) == ("1.0\n", 0), done.stderr


def test_where_memory_is_short_from_the_start_it_is_an_error() -> None:
    """Instead of a process that never ends; what is imported before needs memory of its own."""
    modules = "import numpy.typing, numpy.linalg, bridgeta_core.utils.machine"
    done = run_limited(modules, "import bridgeta_core.utils.arrays")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "MemoryError: no 48 MiB for matrices"
