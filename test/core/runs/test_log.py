"""Logged scalars: their ends, resumptions and curves."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.runs.log import count_epochs, draw_curves, read_log, summarise_end
from bridgeta_core.utils.errors import BridgeTAError


def write(folder: Path, version: int, rows: list[dict[str, object]]) -> None:
    path = folder / f"logs/version_{version}/metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def test_the_end_is_a_mean_of_steps_and_the_last_validation(tmp_path):
    rows: list[dict[str, object]] = [
        {"step": step, "epoch": step // 50, "train/slack_F": step / 100, "train/loss": 1.0} for step in range(0, 101, 5)
    ]
    rows.insert(10, {"step": 49, "epoch": 0, "val/miou": 0.1, "val/assistant_miou": 0.9})
    rows.append({"step": 100, "epoch": 1, "val/miou": 0.2, "val/assistant_miou": 0.3})
    write(tmp_path, 0, rows)
    end = summarise_end(read_log(tmp_path))
    assert end == {"slack_F": pytest.approx(0.975), "val/miou": 0.2, "val/assistant_miou": 0.3}
    assert count_epochs(tmp_path) == 2


def test_a_resumed_run_replaces_the_steps_that_it_repeated(tmp_path):
    write(tmp_path, 0, [{"step": step, "epoch": 0, "train/rho_Z": 0.0} for step in range(100)])
    write(tmp_path, 1, [{"step": step, "epoch": 1, "train/rho_Z": 1.0} for step in range(80, 90)])
    write(tmp_path, 10, [{"step": 90, "epoch": 1, "train/rho_Z": 3.0}])  # 10 comes after 1
    write(tmp_path, 2, [])
    rows = read_log(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(91))
    assert summarise_end(rows)["rho_Z"] == pytest.approx((8 * 1 + 3) / 9)  # steps 82 to 90


def test_without_a_log_there_is_nothing(tmp_path):
    assert read_log(tmp_path) == []
    assert summarise_end([]) == {}
    assert count_epochs(tmp_path) == 0


def test_logs_that_cannot_be_read_are_not_taken_for_none(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(BridgeTAError, match=r"logs: cannot be read \(Permission denied\)"):
        read_log(tmp_path)


def test_damaged_rows_are_left_out_and_said(tmp_path, caplog):
    write(tmp_path, 0, [{"step": step, "epoch": 0, "train/loss": 1.5} for step in range(5)])
    path = tmp_path / "logs/version_0/metrics.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    broken = [b"1,0,1.5,7\r\n", b"\xff\x00\x00,0,1.5\r\n", b"3,0,\x00\r\n", b'"', b"4,0,1."]
    path.write_bytes(lines[0] + lines[1] + broken[0] + lines[2] + b"".join(broken[1:]))
    assert [int(row["step"]) for row in read_log(tmp_path, warn=True)] == [0, 1]
    assert f"{path} is damaged: 4 of its rows are left out" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"step,epoch\n" + b"\xff" * 500, b"\n\n\n"])
def test_a_log_that_is_destroyed_holds_no_rows(tmp_path, content):
    path = tmp_path / "logs/version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert (read_log(tmp_path), count_epochs(tmp_path)) == ([], 0)
    draw_curves(tmp_path, tmp_path / "curves.png")


def test_the_next_log_is_a_new_one_whatever_was_removed(tmp_path):
    for version in (0, 2):
        write(tmp_path, version, [{"step": version, "epoch": 0}])
    (tmp_path / "logs/version_0").rename(tmp_path / "logs/version_0 (copy)")
    assert RunFolder(tmp_path, "student").next_version() == 3
    assert [int(row["step"]) for row in read_log(tmp_path)] == [2]


def test_curves_are_drawn_of_any_log(tmp_path):
    draw_curves(tmp_path, tmp_path / "empty.png")
    write(tmp_path, 0, [{"step": 1, "epoch": 0, "train/loss": 1.5}, {"step": 2, "epoch": 0, "val/miou": 0.2}])
    draw_curves(tmp_path, tmp_path / "curves.png")
    for name in ("empty.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
