"""Loader processes send whatever the machine lends them, and never hang."""

from __future__ import annotations

import copy
import errno
import multiprocessing.context
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from bridgeta_core.data import loader
from bridgeta_core.data.check.run import check
from bridgeta_core.data.frames import Batch, Frame, collate
from bridgeta_core.data.loader import make_loader
from bridgeta_core.model.student import Taps
from bridgeta_core.training.cache.taps import FrameWithTaps, collate_with_taps
from bridgeta_core.utils.errors import BridgeTAError


def frame(number=0, points=7, with_taps=False):
    values = {
        "images": torch.full((2, 3, 4, 5), number, dtype=torch.uint8),
        "intrinsics": torch.full((2, 3, 3), 0.1 + number),
        "ego_T_cam": torch.full((2, 4, 4), 0.2 + number),
        "labels": torch.ones((6, 3, 3), dtype=torch.uint8),
        "known": torch.tensor([True, False] * 3),
        "token": f"token{number}",
        "points": torch.arange(5.0 * points).reshape(points, 5),
    }
    if not with_taps:
        return Frame(**values)
    return FrameWithTaps(**values, taps=Taps(*(torch.full((2, 3), float(i), dtype=torch.float16) for i in range(3))))


class Frames(Dataset):
    """Eight frames, of 0 to 7 points."""

    def __len__(self):
        return 8

    def __getitem__(self, number):
        return frame(number, points=number)


class Signals(Dataset):
    """What loader processes do at Ctrl-C, when their terminal is closed, and when they are to end."""

    def __len__(self):
        return 4

    def __getitem__(self, _):
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        ends = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        return [signal.SIGINT in blocked, signal.SIGHUP in blocked, ends]


def test_loader_processes_leave_interrupts_to_their_parent(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        assert list(make_loader(Signals(), 2, batch_size=None)) == [[True, True, True]] * 4
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


KILLED = """
import os, signal, time
from torch.utils.data import Dataset
from bridgeta_core.data.loader import make_loader

class Slow(Dataset):
    def __len__(self):
        return 9
    def __getitem__(self, _):
        time.sleep(60)

batches = iter(make_loader(Slow(), 2, batch_size=None))
time.sleep(0.5)
print(*(worker.pid for worker in batches._workers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_loader_processes_end_with_their_parent():
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, check=False, timeout=60)
    left = {int(number) for number in done.stdout.split()}
    assert len(left) == 2
    deadline = time.monotonic() + 30  # they would sleep for a minute
    while left := {number for number in left if Path(f"/proc/{number}").exists()}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


LOAD = """
import multiprocessing.util, tempfile
from test_loader import Frames
from bridgeta_core.data.frames import collate
from bridgeta_core.data.loader import make_loader

batches = list(make_loader(Frames(), 2, batch_size=2, collate_fn=collate))
print(len(batches), tempfile.gettempdir(), multiprocessing.util.get_temp_dir())
"""


@pytest.mark.parametrize("length", [75, 76, 200])
def test_a_long_tmpdir_is_no_hindrance(tmp_path, length):
    folder = tmp_path / ("x" * (length - 1 - len(str(tmp_path))))
    folder.mkdir()
    assert len(str(folder)) == length
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])]),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    batches, chosen, of_sockets = done.stdout.split()
    assert (batches, chosen) == ("4", str(folder))
    assert not Path(of_sockets).exists()
    assert not list(folder.iterdir())


def test_no_place_for_sockets_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(loader.tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr(loader.multiprocessing.util, "get_temp_dir", lambda: os.mkdir("/nowhere/x"))
    with pytest.raises(BridgeTAError, match=r"too long for the sockets.*data.workers=0"):
        loader.check_loaders(2)


def assert_equal(one, other):
    assert type(one) is type(other)
    for name, value in vars(one).items():
        if value is None or isinstance(value, str) or name == "tokens":
            assert value == vars(other)[name]
        else:
            torch.testing.assert_close(value, vars(other)[name], rtol=0, atol=0)


@given(points=st.lists(st.integers(0, 9), min_size=1, max_size=4), with_taps=st.booleans())
def test_frames_and_batches_are_the_same_after_sending(points, with_taps):
    frames = [frame(i, n, with_taps) for i, n in enumerate(points)]
    for sent in (frames[0], collate_with_taps(frames)):
        for received in (pickle.loads(pickle.dumps(sent)), copy.copy(sent)):
            assert_equal(received, sent)


@pytest.mark.parametrize("has_room", [True, False])
def test_batches_come_through_shared_memory_or_a_pipe(monkeypatch, caplog, has_room):
    monkeypatch.setattr(loader, "_has_room", lambda _: has_room)
    loader._warn_of_pipes.cache_clear()
    expected = collate([Frames()[i] for i in range(4)])
    batches = list(make_loader(Frames(), 2, batch_size=4, collate_fn=collate))
    assert_equal(batches[0], expected)
    assert len(batches) == 2
    assert batches[0].images.is_shared() == has_room
    assert ("go through pipes" in caplog.text) != has_room
    frames = list(make_loader(Frames(), 2, batch_size=None))
    assert_equal(frames[3], Frames()[3])


def test_shared_memory_that_is_full_after_all_is_no_failure(monkeypatch):
    def full(*_, **__):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    (first, _) = make_loader(Frames(), 1, batch_size=4, collate_fn=collate)
    assert_equal(first, collate([Frames()[i] for i in range(4)]))


def test_shared_memory_is_used_only_with_ample_room(monkeypatch):
    monkeypatch.setattr(loader.os, "statvfs", lambda _: type("State", (), {"f_bavail": 16, "f_frsize": 1 << 20}))
    assert loader._has_room(16 << 20)
    assert not loader._has_room((16 << 20) + 1)

    def no_folder(_):
        raise FileNotFoundError

    monkeypatch.setattr(loader.os, "statvfs", no_folder)
    assert not loader._has_room(1)


class CannotBeSent(Dataset):
    """Loads what cannot be pickled."""

    def __len__(self):
        return 4

    def __getitem__(self, _):
        return lambda: None


def test_a_loader_that_cannot_send_ends_instead_of_hanging(capfd):
    with pytest.raises(RuntimeError, match=r"worker.*exited unexpectedly"):
        list(make_loader(CannotBeSent(), 1, batch_size=None))
    assert "a loader process cannot send what it loaded" in capfd.readouterr().err


@contextmanager
def open_files(limit):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_where_allowed():
    loader._allow_open_files.cache_clear()
    with open_files(64):
        assert len(list(make_loader(Frames(), 1, batch_size=4, collate_fn=collate))) == 2
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(hard, 1 << 16) or hard == resource.RLIM_INFINITY


def test_too_few_open_files_are_said_before_anything_is_loaded(monkeypatch):
    loader._allow_open_files.cache_clear()
    monkeypatch.setattr(loader.resource, "getrlimit", lambda _: (40, 40))
    with pytest.raises(BridgeTAError, match=r"20 loader processes need \d+ open files, but the limit is 40.*ulimit"):
        iter(make_loader(Frames(), 20, batch_size=4, collate_fn=collate))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_no_room_for_semaphores_is_one_message(monkeypatch, small_root, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", fail)
    message = rf"/dev/shm: has no room for what processes share \({os.strerror(number)}\).*--shm-size=1g"
    for start in (lambda: make_loader(Frames(), 2), lambda: check(small_root, deep=True, jobs=1)):
        with pytest.raises(BridgeTAError, match=message):
            start()
    make_loader(Frames(), 0)


TRAIN_IN_64_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from bridgeta_core.cli.commands import app
app()
"""


def test_training_with_a_cache_takes_few_open_files(small_root, small_network, tmp_path):
    settings = [f"data.train_root={small_root}", f"data.val_root={small_root}", "data.version=v1.0-mini"]
    settings += ["data.cameras=[CAM_FRONT,CAM_BACK]", "data.augment.flip=false", "data.augment.colour=0"]
    settings += [*small_network, "data.workers=2", f"data.cache={tmp_path / 'cache'}", "train.epochs=1"]
    command = [sys.executable, "-c", TRAIN_IN_64_FILES, "train", "student", "tiny", *settings]
    result = subprocess.run([*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "student.safetensors").is_file()
    assert "go through pipes" in result.stderr


def test_cached_arrays_keep_no_file_open(tmp_path):
    import numpy as np

    from bridgeta_core.utils.arrays import map_array

    path = tmp_path / "a.npy"
    for array in (np.arange(12, dtype="<f4").reshape(3, 4), np.zeros((0, 5), np.int64), np.array(7.0)):
        np.save(path, array)
        before = len(list(Path("/proc/self/fd").iterdir()))
        mapped = map_array(path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        np.testing.assert_array_equal(mapped, array)
        assert mapped.dtype == array.dtype
        assert not mapped.flags.writeable
    np.save(path, np.arange(9))
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"x", content[:20], b"", b"rubbish" * 9):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r".+"):
            map_array(path)


def test_batch_is_packed_into_one_block():
    state = collate([frame(0), frame(1)]).__getstate__()
    assert isinstance(state["block"], torch.Tensor)
    assert all(start % 64 == 0 for start, _, _ in state["layout"])
    assert len(state["layout"]) == 7
    assert isinstance(Batch(**vars(pickle.loads(pickle.dumps(collate([frame()]))))), Batch)
