"""Logged scalars: their ends, resumptions, and that thinning changes no end."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.runs.log import ends, epochs_done, read_log, write_thinned


def write(folder: Path, version: int, rows: list[dict[str, object]]) -> None:
    path = folder / f"logs/version_{version}/metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def test_the_end_is_the_mean_over_the_last_tenth_of_the_steps_and_the_last_validation(tmp_path):
    rows: list[dict[str, object]] = [
        {"step": step, "epoch": step // 50, "train/slack_F": step / 100, "train/loss": 1.0} for step in range(0, 101, 5)
    ]
    rows.insert(10, {"step": 49, "epoch": 0, "val/miou": 0.1, "val/assistant_miou": 0.9})
    rows.append({"step": 100, "epoch": 1, "val/miou": 0.2, "val/assistant_miou": 0.3})
    write(tmp_path, 0, rows)
    found = ends(read_log(tmp_path))
    assert found == {"slack_F": pytest.approx(0.975), "val/miou": 0.2, "val/assistant_miou": 0.3}
    assert epochs_done(tmp_path) == 2


def test_a_resumed_run_replaces_the_steps_that_it_did_again(tmp_path):
    write(tmp_path, 0, [{"step": step, "epoch": 0, "train/rho_Z": 0.0} for step in range(100)])
    write(tmp_path, 1, [{"step": step, "epoch": 1, "train/rho_Z": 1.0} for step in range(80, 90)])
    write(tmp_path, 10, [{"step": 90, "epoch": 1, "train/rho_Z": 3.0}])  # 10 comes after 1
    write(tmp_path, 2, [])
    rows = read_log(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(91))
    assert ends(rows)["rho_Z"] == pytest.approx((8 * 1 + 3) / 9)  # steps 82 to 90


def test_without_a_log_there_is_nothing(tmp_path):
    assert read_log(tmp_path) == []
    assert ends([]) == {}
    assert epochs_done(tmp_path) == 0


@given(st.integers(1, 400), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_thinning_changes_no_end(count, every, seed):
    rng = np.random.default_rng(seed)
    rows = [{"step": str(step), "epoch": "0", "train/loss": "1"} for step in range(0, count * every, every)]
    for row in rows:
        for column in ("train/delta_F", "train/slack_D", "val/miou"):
            if rng.random() < 0.2:  # metrics are sparse
                row[column] = repr(rng.normal())
    with tempfile.TemporaryDirectory() as folder:
        write_thinned(rows, Path(folder))
        thinned = read_log(Path(folder))
    assert ends(thinned) == pytest.approx(ends(rows))
    assert len(thinned) <= 130
