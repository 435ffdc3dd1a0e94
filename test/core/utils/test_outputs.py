"""Outputs: whole or not at all, in one step, and never in the place of something else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridgeta_core.utils import outputs
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import build_once, check_output, clean_leftovers, move_into_place, replace_when_done


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
    with replace_when_done(target, folder=True) as temporary:
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


def test_an_existing_output_is_kept_without_overwrite(tmp_path):
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


def test_the_first_of_several_builders_wins(tmp_path):
    target = tmp_path / "cache" / "built"
    with build_once(target) as late:
        (late / "late").touch()
        with build_once(target) as early:
            (early / "early").touch()
    assert os.listdir(target) == ["early"]
    assert os.listdir(target.parent) == ["built"]


def test_a_broken_build_leaves_nothing(tmp_path):
    def build() -> None:
        with build_once(tmp_path / "x") as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert not list(tmp_path.iterdir())


def test_a_build_in_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BridgeTAError, match="file/x: cannot be written"), build_once(tmp_path / "file" / "x"):
        pytest.fail("there is no folder to build in")


def test_a_durable_file_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    target, flushed = tmp_path / "state.json", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_ino, target.exists())))
    with replace_when_done(target, durable=True) as temporary:
        temporary.write_text("{}")
    assert flushed == [(target.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def write_and_die(target: Path, folder: bool = False) -> None:
    """Let another process begin an output and be killed."""
    script = f"""
import os, signal
from pathlib import Path
from bridgeta_core.utils.outputs import replace_when_done
with replace_when_done(Path({str(target)!r}), folder={folder}) as temporary:
    temporary.mkdir() if {folder} else temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9


def without_exchange(monkeypatch):
    """Behave as a file system that can only rename."""
    monkeypatch.setattr(outputs, "_rename", lambda *_: False)


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "precious").touch()
    with pytest.raises(BridgeTAError, match=r"results: is a folder"), replace_when_done(tmp_path / "results"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path / "results") == ["precious"]


def test_a_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "results").write_text("precious")
    with pytest.raises(BridgeTAError, match=r"is a file"), replace_when_done(tmp_path / "results", folder=True):
        pytest.fail("the block must not run")
    assert (tmp_path / "results").read_text() == "precious"


def test_a_folder_that_appears_meanwhile_is_not_replaced_by_a_file(tmp_path):
    def meanwhile():
        with replace_when_done(tmp_path / "out") as temporary:
            temporary.touch()
            (tmp_path / "out").mkdir()

    with pytest.raises(BridgeTAError, match="is a folder"):
        meanwhile()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_what_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch, exchange, folder):
    if not exchange:
        without_exchange(monkeypatch)
    target = tmp_path / "out"

    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
        (path / "file" if folder else path).write_text(text)

    def meanwhile():
        with replace_when_done(target, overwrite=False, folder=folder) as temporary:
            write(temporary, "later")
            write(target, "earlier")

    with pytest.raises(BridgeTAError, match="already exists"):
        meanwhile()
    assert (target / "file" if folder else target).read_text() == "earlier"
    assert os.listdir(tmp_path) == ["out"]


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link", tmp_path / "pipe"):
        with pytest.raises(BridgeTAError, match="is a device or a pipe"), replace_when_done(path):
            pytest.fail("the block must not run")


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    with replace_when_done(tmp_path / "link") as temporary:
        temporary.write_text("after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"


def test_a_mount_point_is_refused_at_the_start():
    with pytest.raises(BridgeTAError, match="is a mount point"):
        check_output(Path("/proc"), folder=True)


@pytest.mark.parametrize("source", ["drive", "drive/bag", "drive/bag/data.mcap"])
def test_an_output_never_holds_an_input(tmp_path, source):
    (tmp_path / "drive" / "bag").mkdir(parents=True)
    (tmp_path / "drive" / "bag" / "data.mcap").touch()
    with pytest.raises(BridgeTAError, match="holds the input"):
        check_output(tmp_path / "drive", folder=True, inputs=[tmp_path / source])
    assert check_output(tmp_path / "drive" / "new", folder=True, inputs=[tmp_path / source])


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert check_output(out, folder=True, sign="metadata.yaml") == out
    (out / "thesis").touch()
    with pytest.raises(BridgeTAError, match=r"holds something else \(there is no metadata.yaml") as caught:
        check_output(out, folder=True, sign="metadata.yaml")
    assert caught.value.exit_code == 2
    (out / "metadata.yaml").touch()
    assert check_output(out, folder=True, sign="metadata.yaml") == out


def test_an_input_behind_a_link_is_found(tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "link").symlink_to("drive")
    with pytest.raises(BridgeTAError, match="holds the input"):
        check_output(tmp_path / "link", folder=True, inputs=[tmp_path / "drive"])


def test_folders_are_exchanged_in_one_step(tmp_path, monkeypatch):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    seen = []
    monkeypatch.setattr(outputs, "discard", lambda path: seen.append((path, os.listdir(path))))
    move_into_place(tmp_path / "new", tmp_path / "old")
    assert os.listdir(tmp_path / "old") == ["new"]
    assert seen == [(tmp_path / "new", ["old"])]  # the names have changed places, and the earlier output goes


def test_a_failing_second_step_puts_the_earlier_output_back(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    real, calls = os.rename, []

    def fail_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(OSError, match="Input/output"):
        move_into_place(tmp_path / "new", tmp_path / "old")
    assert os.listdir(tmp_path / "old") == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


@pytest.mark.parametrize("folder", [True, False])
def test_what_a_killed_process_left_is_removed_and_said(tmp_path, caplog, folder):
    write_and_die(tmp_path / "out", folder)
    assert len(os.listdir(tmp_path)) == 1
    with replace_when_done(tmp_path / "other") as temporary:
        temporary.touch()
    assert os.listdir(tmp_path) == ["other"]
    assert "left by a process that was killed" in caplog.text


def test_what_cannot_be_removed_is_said_and_the_rest_is_removed(tmp_path, caplog, monkeypatch):
    unlink = os.unlink

    def refuse(path, **options):
        if Path(path).name == "stuck":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        unlink(path, **options)

    (tmp_path / "out").mkdir()
    for name in ("a", "stuck", "z"):
        (tmp_path / "out" / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        outputs.discard(tmp_path / "out")
    (left,) = tmp_path.iterdir()
    assert os.listdir(left) == ["stuck"]
    assert f"{left}: cannot be removed (Permission denied)" in caplog.text
    outputs.discard(left)
    assert not list(tmp_path.iterdir())


def test_an_output_set_aside_by_a_killed_process_is_put_back(tmp_path, caplog):
    write_and_die(tmp_path / "out", folder=True)
    (left,) = tmp_path.iterdir()
    left.rename(left.with_suffix(".old"))  # as between the two steps of a file system that can only rename
    clean_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["out"]
    assert "put back" in caplog.text


def test_what_a_living_process_writes_stays(tmp_path):
    with replace_when_done(tmp_path / "out") as temporary:
        temporary.touch()
        clean_leftovers.cache_clear()
        clean_leftovers(tmp_path)
        assert temporary.exists()


def test_hidden_files_of_others_stay(tmp_path):
    names = [".vimrc.partial", ".a.b-c-d.old", ".x.0-0-1-1-1.partial", "y.partial"]
    for name in names:
        (tmp_path / name).touch()
    clean_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_the_longest_name_can_be_written(tmp_path):
    target = tmp_path / ("ü" * 127)
    with replace_when_done(target) as temporary:
        temporary.touch()
    assert target.exists()
