from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from memory_limit import little_memory

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import (
    choose_device,
    read_cpu_name,
    require_memory,
    resolve_device,
    shield_from_interrupts,
)


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    for there, name in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert choose_device("auto") == name
    assert choose_device("cuda:3") == "cuda:3"


@pytest.mark.parametrize("name", ["no-such-device", "cuda:99"])
def test_a_device_that_is_not_there_is_one_clear_message(name):
    with pytest.raises(BridgeTAError, match=rf"device {name} is not usable \(.*\)\. Use auto or cpu") as error:
        resolve_device(name)
    assert error.value.exit_code == 2


def test_the_cpu_is_always_usable():
    assert resolve_device("cpu").type == "cpu"
    assert read_cpu_name()


def test_memory_that_is_not_there_is_an_error():
    require_memory(64, "a test")
    with little_memory(32 * 2**20), pytest.raises(MemoryError, match="no 64 MiB for a test"):
        require_memory(64, "a test")
    require_memory(64, "a test")  # it was given back


def test_a_shielded_child_outlives_ctrl_c():
    with shield_from_interrupts():
        child = subprocess.Popen(["sleep", "60"])
    os.kill(child.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.2)
    child.terminate()
    assert child.wait(5) == -signal.SIGTERM


def test_a_worker_ends_with_the_process_that_started_it():
    worker = """
import time
from bridgeta_core.utils.machine import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
    starter = f"""
import os, signal, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {worker!r}], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, check=False)
    state = Path(f"/proc/{int(done.stdout)}/stat")
    while state.exists() and ") Z " not in state.read_text():
        time.sleep(0.01)


def test_a_worker_ends_whose_parent_was_gone_before_it_had_loaded(tmp_path):
    """The parent is killed while its worker loads, here until a file is there."""
    script = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from bridgeta_core.utils.machine import end_with_parent
def work(folder):
    (folder / "started").touch()
    while not (folder / "loaded").exists():
        time.sleep(0.01)
    end_with_parent()
    time.sleep(600)
if __name__ == "__main__":
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(Path(sys.argv[2]),))
    worker.start()
    while not (Path(sys.argv[2]) / "started").exists():
        time.sleep(0.01)
    print(worker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "program.py").write_text(script)
    for method in ("spawn", "fork"):
        folder = tmp_path / method
        folder.mkdir()
        command = [sys.executable, str(tmp_path / "program.py"), method, str(folder)]
        with (tmp_path / "pid").open("w+b") as output:  # a pipe would stay open as long as the worker
            subprocess.run(command, stdout=output, check=False)
            output.seek(0)
            state = Path(f"/proc/{int(output.read())}/stat")
        assert state.exists()
        (folder / "loaded").touch()
        while state.exists() and ") Z " not in state.read_text():
            time.sleep(0.01)


def test_the_shield_also_holds_for_the_first_process_of_a_program(tmp_path):
    script = """
import multiprocessing, os, signal
from bridgeta_core.utils.machine import shield_from_interrupts
def blocked(pipe):
    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with shield_from_interrupts():
        process = context.Process(target=blocked, args=(theirs,))
        process.start()
    print(ours.recv())
    process.join()
"""
    path = tmp_path / "program.py"
    path.write_text(script)
    assert subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, check=True).stdout == b"True\n"


FRAGMENTS = """
from pathlib import Path
from bridgeta_core.utils.machine import return_memory

def measure():
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256

import numpy as np
pieces = [np.ones(10_000) for _ in range(2_000)]
del pieces[1:-1]
before = measure()
return_memory()
print(before - measure())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not a glibc")
def test_memory_between_pieces_in_use_is_returned():
    freed = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True).stdout
    assert float(freed) > 100  # of 150 MiB that numpy has freed
