"""Every method of distillation in the loop: killed and resumed, and in two processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import to_mapping
from bridgeta_core.distill.methods.registry import METHODS
from bridgeta_core.training.train import train_distill

pytestmark = pytest.mark.slow

COMMON = [
    "distill.warmup_steps=3",
    "distill.ramp_steps=4",
    "distill.calibrate_steps=2",
    "distill.statistics_frames=4",
    "data.steps_per_epoch=10",
    "train.epochs=2",
]
# What a method takes over its batch is taken over that of one process.
BY_BATCH = {
    "bevfeature": "the points that it draws are of frames in their order",
    "rdd": "a share of the batch's cells is hard, and the loss is a mean over them",
    "tscm": "its queue is the first process's, and triplets are within a batch",
}
KILLED = """
import os, signal, sys
from pathlib import Path
from bridgeta_core.config import experiment as config
from bridgeta_core.training.distill_task import DistillTask
from bridgeta_core.training.train import train_distill

def start(task, *_):
    if task.global_step == 14:
        os.kill(os.getpid(), signal.SIGKILL)

DistillTask.on_train_batch_start = start
train_distill(config.load(config.Experiment, sys.argv[1]), Path(sys.argv[2]))
"""
# Without AdamW, which turns the rounding of a vanishing gradient into a whole step.
SEVERAL = """
import sys
from pathlib import Path
import torch
from bridgeta_core.config import experiment as config
from bridgeta_core.training.train import train_distill

torch.optim.AdamW = lambda groups, lr, weight_decay=0.0: torch.optim.SGD(groups, lr=lr, momentum=0.9)
folder, batch = Path(sys.argv[1]), sys.argv[2]
for method in sys.argv[3:]:
    overrides = [f"data.batch_size={batch}", f"distill.method={method}"]
    settings = config.load(config.Experiment, folder / "experiment.yaml", overrides)
    train_distill(settings, folder / f"{method}{batch}")
"""


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_killed_resumes_exactly(method, two_scenes, teacher, tmp_path):
    settings = two_scenes(f"distill.teacher={teacher}", f"distill.method={method}", *COMMON)
    train_distill(settings, tmp_path / "whole")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(to_mapping(settings)))
    arguments = [str(tmp_path / "settings.yaml"), str(tmp_path / "killed")]
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    assert not (tmp_path / "killed/student.safetensors").exists()
    train_distill(config.load(config.Experiment, tmp_path / "settings.yaml"), tmp_path / "killed", resume=True)
    whole, resumed = read_state(tmp_path / "whole"), read_state(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@pytest.fixture(scope="module")
def folder(two_scenes, teacher, tmp_path_factory) -> Path:
    """Runs of all methods with a batch of 2 in one process, and of 1 in each of two."""
    folder = tmp_path_factory.mktemp("distributed")
    settings = two_scenes(
        "data.train_scenes=scene-0061",  # whose map knows all classes: the label loss is a mean over what is known
        f"distill.teacher={teacher}",
        *COMMON,
        "distill.warmup_steps=0",
        "distill.levels.calibrate=0",
        "data.steps_per_epoch=3",
        "train.epochs=1",
    )
    (folder / "experiment.yaml").write_text(yaml.safe_dump(to_mapping(settings)))
    (folder / "script.py").write_text(SEVERAL)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, batch in (([], "2"), (torchrun, "1")):
        script = [str(folder / "script.py"), str(folder), batch, *METHODS]
        subprocess.run([sys.executable, *launcher, *script], check=True)
    return folder


@pytest.mark.parametrize("method", [method for method in METHODS if method not in BY_BATCH])
def test_two_processes_equal_one_with_the_double_batch(method, folder):
    one, two = (read_state(folder / f"{method}{batch}") for batch in (2, 1))
    assert one.keys() == two.keys()
    student = [name for name in one if name.startswith("student.")]
    assert [name for name in student if not torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5)] == []
