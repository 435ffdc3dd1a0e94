"""What is done of a study and what is to do, with the time that it will take."""

from __future__ import annotations

import math
from pathlib import Path

from rich.table import Table

from bridgeta_core.study import text
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import settle
from bridgeta_core.study.results import Results
from bridgeta_core.study.state import State, state


def overview(study: StudyConfig, out: Path, jobs: int) -> Table:
    """Every run in the order of the plan: state, and the time it took or will take by the finished runs.

    Raises BridgeTAError when a run has other settings than the study.
    """
    results = Results(study, out)
    rows, left, unknown = [], 0.0, 0
    for run in results.runs:
        planned = settle(study, run, results.runs)
        how_far = state(run, planned)
        if how_far is State.done:
            rows.append((run.name, how_far.value, text.duration(results.records[run.name].seconds), ""))
            continue
        seconds = results.seconds(run)
        left, unknown = left + (0 if math.isnan(seconds) else seconds), unknown + math.isnan(seconds)
        remark = f"as long as {run.like}, once that is measured" if planned is None else ""
        rows.append(
            (run.name, how_far.value, "?" if math.isnan(seconds) else f"about {text.duration(seconds)}", remark)
        )
    caption = f"{len(results.records)} of {len(rows)} done"
    if left:
        caption += f"; about {text.duration(left / jobs)} to go with {jobs} at a time"
    if unknown:
        caption += f"; {unknown} runs without a finished one of their kind are not counted"
    table = Table(title=f"Runs in {out}", caption=caption)
    for column in ("run", "state", "time", ""):
        table.add_column(column, justify="right" if column == "time" else "left")
    for row in rows:
        table.add_row(*row)
    return table
