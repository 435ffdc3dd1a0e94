"""How many processes train together."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.training.processes import Processes

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}
SLURM = {"SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_PROCID": "9", "SLURM_JOB_NAME": "job", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [(TORCHRUN, Processes(5, 4, 2)), (SLURM, Processes(9, 8, 2))],
    ids=["torchrun", "slurm"],
)
def test_a_launcher_says_how_many(monkeypatch, environment, expected):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Processes.found() == expected
    assert Processes.found().world == expected.devices * 2


def test_without_a_launcher_there_is_one_process_per_gpu_and_else_one(monkeypatch):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Processes.found() == Processes(0, 1, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Processes.found() == Processes(0, 4, 1)
