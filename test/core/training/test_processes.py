"""How many processes train together, and that they equal one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from bridgeta_core.config.experiment import to_mapping
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
def test_a_launcher_sets_the_processes(monkeypatch, environment, expected):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Processes.detect() == expected
    assert Processes.detect().world == expected.devices * 2


def test_without_a_launcher_there_is_one_process_per_gpu(monkeypatch):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Processes.detect() == Processes(0, 1, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Processes.detect() == Processes(0, 4, 1)


# In double precision, because AdamW turns the rounding of a vanishing gradient into a whole step.
SCRIPT = """
import sys
from pathlib import Path
from bridgeta_core.config import experiment as config
from bridgeta_core.training.train import train_distill, train_student
from bridgeta_core.training.tasks import StudentTask

single = StudentTask.__init__

def double(task, *arguments):
    single(task, *arguments)
    task.double()

StudentTask.__init__ = double
folder, batch = Path(sys.argv[1]), sys.argv[2]
experiment = config.load(config.Experiment, folder / "experiment.yaml", [f"data.batch_size={batch}"])
train_student(experiment, folder / f"student{batch}")
train_distill(experiment, folder / f"distill{batch}")
"""


@pytest.fixture(scope="module")
def folder(two_scenes, teacher, tmp_path_factory) -> Path:
    """Runs with a batch of 2 in one process, and of 1 in each of two."""
    folder = tmp_path_factory.mktemp("distributed")
    settings = two_scenes(
        "data.train_scenes=scene-0061",  # whose map knows all classes: the label loss is a mean over what is known
        f"distill.teacher={teacher}",
        "distill.method=direct",
        "distill.levels.calibrate=0",
        "distill.ramp_steps=2",
        "data.steps_per_epoch=3",
        "train.epochs=1",
        "train.ema=0.9",
    )
    (folder / "experiment.yaml").write_text(yaml.safe_dump(to_mapping(settings)))
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, batch in (([], 2), (torchrun, 1)):
        subprocess.run([sys.executable, *launcher, str(script), str(folder), str(batch)], check=True)
    return folder


@pytest.mark.parametrize("kind", ["student", "distill"])
def test_two_processes_equal_one_with_the_double_batch(folder, kind):
    one, two = (torch.load(folder / f"{kind}{batch}" / "checkpoints/last.ckpt", weights_only=True) for batch in (2, 1))
    assert one["global_step"] == two["global_step"] == 3
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == two[key].keys()
        for name, value in one[key].items():
            assert torch.allclose(value, two[key][name], rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("kind", ["student", "distill"])
def test_every_validation_frame_is_counted_once(folder, kind):
    one, two = (json.loads((folder / f"{kind}{batch}" / "run.json").read_text()) for batch in (2, 1))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["validation"]["last"]["samples"] == 4
    assert one["validation"] == two["validation"]
