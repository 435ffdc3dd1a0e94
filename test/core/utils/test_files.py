from __future__ import annotations

import errno
import fcntl
import os
import pwd
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import find_user_cache, hash_file, hash_json, hold_lock


def test_a_hash_tells_contents_apart(tmp_path):
    assert hash_json([1, "a"]) == hash_json([1, "a"]) != hash_json([1, "b"])
    assert len(hash_json({})) == 24
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_lock_needs_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/inside", Path("/dev/null")):
        with pytest.raises(BridgeTAError, match="no folder") as caught, hold_lock(folder / ".lock", wait=False):
            pytest.fail("it is locked")
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("call", ["open", "write"])
def test_a_lock_on_a_full_disk_is_one_error(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(BridgeTAError, match="No space left"), hold_lock(tmp_path / ".lock", wait=False):
            pytest.fail("it is locked")
    with hold_lock(tmp_path / ".lock", wait=False):
        pass


def test_a_file_system_without_locks_is_worth_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_lock(tmp_path / ".lock", wait=False):
        assert "cannot be locked (No locks available)" in caplog.text


HOLDER = """
import subprocess, sys
from pathlib import Path
from bridgeta_core.utils.files import hold_lock
with hold_lock(Path(sys.argv[1]), wait=False) as descriptor:
    outliving = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=(descriptor,))
    print(outliving.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("outlived", [False, True])
def test_a_dead_holder_frees_its_lock_unless_a_child_lives_on(tmp_path, outlived):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path), "60" if outlived else "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        run = int(holder.stdout.readline())
        with pytest.raises(BridgeTAError, match=rf"process {holder.pid} on"), hold_lock(path, wait=False):
            pytest.fail("it is locked")
        holder.kill()
        holder.wait()
        if outlived:
            with pytest.raises(BridgeTAError, match="another process works here"), hold_lock(path, wait=False):
                pytest.fail("it is locked")
            os.kill(run, 9)
        deadline = time.monotonic() + 10
        while True:  # the system takes a moment to clean up after the killed
            try:
                with hold_lock(path, wait=False):
                    break
            except BridgeTAError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert f"process {os.getpid()}" in path.read_text()


def test_the_cache_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_user_cache() == tmp_path / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_user_cache() == tmp_path / "xdg"


def _no_home(monkeypatch, tmp_path):
    def fail(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", fail)


def _home_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))


def _read_only_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)


@pytest.mark.parametrize("remove", [_no_home, _home_in_a_file, _read_only_home])
def test_without_a_usable_home_the_cache_is_among_temporary_files(tmp_path, monkeypatch, remove):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    remove(monkeypatch, tmp_path)
    assert find_user_cache() == Path(tempfile.gettempdir()) / f"bridgeta-cache-{os.getuid()}"


COMMANDS_WITHOUT_HOME = """
import os, pwd, sys
def fail(number): raise KeyError(number)
pwd.getpwuid = fail
for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "BRIDGETA_CACHE"):
    os.environ.pop(name, None)
from bridgeta_ros.commands import app
app()
"""


def test_commands_run_without_a_home(small_root, small_network, tmp_path):
    settings = [f"data.train_root={small_root}", f"data.val_root={small_root}", "data.version=v1.0-mini"]
    settings += [*small_network, "data.cameras=[CAM_FRONT,CAM_BACK]", "data.workers=1", "train.epochs=1"]
    commands = (
        ["data", "index", str(small_root)],
        ["train", "student", "tiny", *settings, "--out", "run"],
        ["eval", "run/student.safetensors", str(small_root), "--out", "eval"],
        ["view", str(small_root), "sample.png"],
        ["bag", str(small_root), "bag", "--scene", "scene-0061"],
    )
    (tmp_path / "work").mkdir()
    with tempfile.TemporaryDirectory() as short:  # the name of a socket among the temporary files ends at 107 bytes
        environment = {**os.environ, "TMPDIR": short, "PYTHONPATH": str(Path(__file__).parents[3])}
        for command in commands:
            call = [sys.executable, "-c", COMMANDS_WITHOUT_HOME, *command]
            result = subprocess.run(
                call, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
        assert (Path(short) / f"bridgeta-cache-{os.getuid()}" / "bridgeta" / "index").is_dir()
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"run", "eval", "sample.png", "bag"}
