"""The folder of a run: the names of its files, and what may be done in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridgeta_core.config.experiment import Experiment, to_mapping
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import replace_when_done
from bridgeta_core.utils.settings import rename_old_keys

SETTINGS, RECORD, CHECKPOINT = "experiment.yaml", "run.json", "checkpoints/last.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """`path` receives experiment.yaml, logs/version_N (metrics.csv and TensorBoard events; N counts the resumptions),
    checkpoints/last.ckpt and checkpoints/best.ckpt, and at the end run.json, curves.png and `kind`.safetensors.
    """

    path: Path
    kind: str

    @property
    def settings(self) -> Path:
        return self.path / SETTINGS

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint of the last finished epoch."""
        return self.path / CHECKPOINT

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def weights(self) -> Path:
        """The exported weights; a distilled student is a student."""
        return self.path / f"{'teacher' if self.kind == 'teacher' else 'student'}.safetensors"

    @property
    def record(self) -> Path:
        """The record, written last of all: a run that has it is finished."""
        return self.path / RECORD

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    def check(self, experiment: Experiment, resume: bool) -> None:
        """Raise BridgeTAError (exit code 2) when the folder holds a run and `resume` is off, when it holds none and
        `resume` is on, or when the run to resume has other settings.
        """
        where = self.path
        if not resume and (self.last.exists() or self.weights.exists()):
            fix = "Add --resume or name another --out"
            raise BridgeTAError("already holds a run", where=where, fix=fix, exit_code=2)
        if resume and not self.last.exists():
            raise BridgeTAError("has no checkpoint to resume from", where=where, fix="Leave out --resume", exit_code=2)
        if resume and self._read_settings() != to_mapping(experiment):
            raise BridgeTAError(
                "is a run with other settings", where=where, fix=f"Resume with those of {self.settings}", exit_code=2
            )

    def _read_settings(self) -> dict[str, Any]:
        return rename_old_keys(Experiment, yaml.safe_load(self.settings.read_text()), self.settings, announce=False)

    def save_settings(self, experiment: Experiment) -> None:
        with replace_when_done(self.settings) as temporary:
            temporary.write_text(yaml.safe_dump(to_mapping(experiment), sort_keys=False))

    def next_version(self) -> int:
        """Return the number of the next log: a resumed run must not overwrite the earlier one."""
        return len(list(self.logs.glob("version_*")))


def list_logs(path: Path) -> list[Path]:
    """List the logs/version_N/metrics.csv of a run's folder by N."""
    logs = (path / "logs").glob("version_*/metrics.csv")
    return sorted(logs, key=lambda log: int(log.parent.name.removeprefix("version_")))
