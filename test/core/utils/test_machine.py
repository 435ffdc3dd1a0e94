from __future__ import annotations

import os
import signal
import subprocess

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import choose_device, read_cpu_name, resolve_device, shield_from_interrupts


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


def test_a_shielded_child_outlives_ctrl_c():
    with shield_from_interrupts():
        child = subprocess.Popen(["sleep", "60"])
    os.kill(child.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.2)
    child.terminate()
    assert child.wait(5) == -signal.SIGTERM
