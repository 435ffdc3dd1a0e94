"""The folder of a run: the names of its files, and what may be done in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridgeta_core.config.experiment import Experiment, to_mapping
from bridgeta_core.utils.errors import BridgeTAError, read_message
from bridgeta_core.utils.files import check_folder, hold_lock
from bridgeta_core.utils.limits import LARGEST_TEXT, SettingsLoader, check_plain, read_limited
from bridgeta_core.utils.outputs import replace_when_done
from bridgeta_core.utils.settings import rename_old_keys

SETTINGS, RECORD, CHECKPOINT = "experiment.yaml", "run.json", "checkpoints/last.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """`path` receives experiment.yaml, logs/version_N (metrics.csv and TensorBoard events; N counts the resumptions),
    checkpoints/last.ckpt, checkpoints/best.ckpt and samples.png, and at the end run.json, curves.png and
    `kind`.safetensors. The process that trains there holds .lock.
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
    def lock(self) -> Path:
        """The file that the process locks that trains here."""
        return self.path / ".lock"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation so far."""
        return self.checkpoints / "best.ckpt"

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
    def samples(self) -> Path:
        """The picture of some validation samples after the last epoch."""
        return self.path / "samples.png"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder for this process alone. Raises BridgeTAError when another process trains there."""
        fix = "Wait until it has ended, or name another --out"
        with hold_lock(self.lock, wait=False, busy="another process trains here", fix=fix):
            yield

    def check(self, experiment: Experiment, resume: bool) -> None:
        """Raise BridgeTAError (exit code 2) when the folder is a file, when it holds a run and `resume` is off, when it
        holds none and `resume` is on, or when the run to resume has other settings or they are damaged.
        """
        where = self.path
        check_folder(where)
        if not resume and (self.last.exists() or self.weights.exists()):
            fix = "Add --resume or name another --out"
            raise BridgeTAError("already holds a run", where=where, fix=fix, exit_code=2)
        if resume and not self.last.exists():
            raise BridgeTAError("has no checkpoint to resume from", where=where, fix="Leave out --resume", exit_code=2)
        if resume and not self.settings.exists():
            fix = "Put it there again, or start the run again in another --out"
            raise BridgeTAError("has lost its settings, experiment.yaml", where=where, fix=fix, exit_code=2)
        if resume and read_settings(self.path) != to_mapping(experiment):
            raise BridgeTAError(
                "is a run with other settings", where=where, fix=f"Resume with those of {self.settings}", exit_code=2
            )

    def save_settings(self, experiment: Experiment) -> None:
        with replace_when_done(self.settings, durable=True) as temporary:
            temporary.write_text(yaml.safe_dump(to_mapping(experiment), sort_keys=False))

    def next_version(self) -> int:
        """Return the number of the next log: a resumed run must not overwrite an earlier one."""
        return max(_find_versions(self.path), default=-1) + 1


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run as nested plain values under their present names; {} when they are not there.

    Raises BridgeTAError that names the file when it is damaged.
    """
    path = folder / SETTINGS
    try:
        content = yaml.load(read_limited(path, LARGEST_TEXT).decode(), SettingsLoader)
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
        check_plain(content)
        return rename_old_keys(Experiment, content, path, announce=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise BridgeTAError(
            f"is damaged ({read_message(error)})",
            where=path,
            fix="Put a whole one in its place, or move the run's folder away to have it trained again",
            exit_code=2,
        ) from error


def list_logs(path: Path) -> list[Path]:
    """List the logs/version_N/metrics.csv of a run's folder by N."""
    versions = _find_versions(path)
    return [log for number in sorted(versions) if (log := versions[number] / "metrics.csv").is_file()]


def _find_versions(path: Path) -> dict[int, Path]:
    """Find the logs/version_N of a run's folder, and pass over copies that have other names."""
    try:  # not by glob, for which a folder that cannot be read is an empty one
        names = os.listdir(path / "logs")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path / "logs") from error
    numbered = ((name.removeprefix("version_"), name) for name in names if name.startswith("version_"))
    return {int(n): path / "logs" / name for n, name in numbered if n.isdecimal() and n.isascii()}
