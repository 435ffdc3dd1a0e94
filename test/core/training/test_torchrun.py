"""Training in processes that torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `bridgeta` in two processes on the CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "bridgeta_core", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)


def test_two_processes_of_torchrun_train_one_network(small_root, small_network, tmp_path):
    roots = [f"data.train_root={small_root}", f"data.val_root={small_root}", "data.version=v1.0-mini"]
    settings = ["tiny", *small_network, *roots, "data.cameras=[CAM_FRONT,CAM_BACK]", "data.workers=0"]
    arguments = ["train", "student", *settings, "--out", str(tmp_path / "run")]

    done = torchrun(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    assert (tmp_path / "run/student.safetensors").is_file()
