"""Two processes take the steps of one with batches twice as large."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from bridgeta_core.config.experiment import to_mapping
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.processes import Processes
from bridgeta_core.utils.errors import BridgeTAError

# In double precision, because AdamW turns the rounding of a vanishing gradient into a whole step.
SCRIPT = """
import sys
from pathlib import Path
from bridgeta_core import config
from bridgeta_core.training import train_distill, train_student
from bridgeta_core.training.studenttask import StudentTask

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
def test_weights_and_statistics_are_the_same(folder, kind):
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


def test_more_processes_than_validation_frames_are_refused(two_scenes):
    with pytest.raises(BridgeTAError, match="5 processes cannot share 4 validation samples"):
        Frames(two_scenes(), Processes(0, 5))
