from __future__ import annotations

import errno
import os

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import replace_when_done


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "out.txt"
    with replace_when_done(target) as temporary:
        temporary.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert os.listdir(target.parent) == ["out.txt"]


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with replace_when_done(target) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, BridgeTAError])
def test_after_an_error_or_ctrl_c_everything_is_as_before(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("before")

    def interrupted():
        with replace_when_done(target) as temporary:
            temporary.write_text("half")
            raise error("stop")

    with pytest.raises(error):
        interrupted()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_after_an_error_no_half_written_folder_is_left(tmp_path):
    def interrupted():
        with replace_when_done(tmp_path / "out") as temporary:
            (temporary / "deep").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_clear_message(tmp_path):
    target = tmp_path / "out.txt"

    def full():
        with replace_when_done(target) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BridgeTAError, match=r"out.txt: cannot be written \(No space left on device\).*free space"):
        full()
    assert os.listdir(tmp_path) == []


def test_an_existing_output_is_kept_when_it_may_not_be_overwritten(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("mine")
    with pytest.raises(BridgeTAError, match=r"out.txt: already exists"), replace_when_done(target, overwrite=False):
        pytest.fail("the block must not run")
    assert target.read_text() == "mine"


def test_a_parent_that_is_a_file_is_one_clear_message(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(BridgeTAError, match=r"cannot be written \((Not a directory|File exists)\)"),
        replace_when_done(tmp_path / "file" / "deep" / "out.txt"),
    ):
        pytest.fail("the block must not run")
