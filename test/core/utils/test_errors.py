"""What the system and PyTorch say of a failure becomes one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, describe_refusal, read_message


class Failing(Dataset[int]):
    """Frames of which none can be read."""

    def __init__(self, fail: Callable[[], NoReturn]) -> None:
        self.fail = fail

    def __len__(self) -> int:
        return 1

    def __getitem__(self, position: int) -> int:
        self.fail()


def catch_in_loader(fail: Callable[[], NoReturn]) -> BaseException:
    """Return what comes out of a loader whose process fails."""
    with pytest.raises(Exception) as raised:  # noqa: PT011
        next(iter(DataLoader(Failing(fail), num_workers=1)))
    return raised.value


def fill_the_disk() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.npy")


def run_out_of_memory() -> NoReturn:
    raise MemoryError


def refuse() -> NoReturn:
    raise BridgeTAError("is broken", where="b.npy", fix="Mend it")


def test_a_file_that_torch_cannot_open_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.from_file(str(tmp_path / "none"), size=1, dtype=torch.uint8)
    assert describe_refusal(raised.value) == (
        f"unable to open file <{tmp_path / 'none'}> in read-only mode: No such file or directory (2)"
    )


def test_a_failure_of_the_system_is_told_with_its_file() -> None:
    with pytest.raises(OSError, match="No space") as raised:
        fill_the_disk()
    assert describe_refusal(raised.value) == "a.npy: No space left on device"


def test_a_loader_process_is_quoted_in_its_last_line() -> None:
    assert describe_refusal(catch_in_loader(fill_the_disk)) == "[Errno 28] No space left on device: 'a.npy'"
    assert describe_lack_of_memory(catch_in_loader(run_out_of_memory)) is not None
    assert str(catch_in_loader(refuse)) == "b.npy: is broken. Mend it"


@pytest.mark.parametrize("said", ["could not create a primitive", "could not execute a primitive"])
def test_onednn_says_in_its_own_words_that_memory_ended(said: str) -> None:
    assert describe_lack_of_memory(RuntimeError(said)) == said
    assert describe_lack_of_memory(RuntimeError("could not create a primitive descriptor for a matmul")) is None


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch (24)"), RuntimeError("a: b (24)"), RuntimeError(), ValueError("x: y (2)")]
)
def test_other_errors_are_not_the_systems(error: BaseException) -> None:
    assert describe_refusal(error) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [(MemoryError(), "MemoryError"), (ValueError("  \n"), "ValueError"), (ValueError("one\ntwo"), "one")],
)
def test_an_error_without_words_is_named_by_its_type(error: BaseException, message: str) -> None:
    assert read_message(error) == message
