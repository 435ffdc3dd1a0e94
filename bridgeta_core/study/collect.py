"""Keeps what a study's tables are made of, without weights and checkpoints, small enough to be committed."""

from __future__ import annotations

import shutil
from pathlib import Path

from bridgeta_core.runs.log import read_log, write_thinned
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import LENGTH
from bridgeta_core.study.plan import plan
from bridgeta_core.study.state import RECORD, SETTINGS, State, state
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import replace_when_done


def collect(study: StudyConfig, out: Path, target: Path) -> int:
    """Copy run.json, the settings and a thinned log of every finished run to `target`, and return how many there are.

    The tables of `target` are those of `out`. Runs that `target` holds besides stay. Raises BridgeTAError when nothing
    is finished, or when both are the same folder.
    """
    if out.resolve() == target.resolve():
        raise BridgeTAError("is the study's own folder", where=target, fix="Collect into another folder", exit_code=2)
    done = [run for run in plan(study, out) if state(run) is State.done]
    if not done:
        raise BridgeTAError("has no finished run to collect", where=out, fix="Let the study run first", exit_code=2)
    for run in done:
        with replace_when_done(target / run.name) as folder:
            folder.mkdir()
            for name in (RECORD, SETTINGS, LENGTH):
                if (run.folder / name).exists():
                    shutil.copyfile(run.folder / name, folder / name)
            if rows := read_log(run.folder):
                write_thinned(rows, folder)
    return len(done)
