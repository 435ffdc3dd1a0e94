"""The page of runs made by hand."""

from __future__ import annotations

import shlex
import shutil
import threading
from datetime import date
from pathlib import Path

from bridgeta_core.study import report
from bridgeta_core.study.config import load_study
from bridgeta_core.study.report import format_page
from bridgeta_core.study.results import Results
from bridgeta_core.study.study import format_render_command, render_study


def test_the_page_says_where_its_figures_come_from(filled):
    study, out = filled
    command = format_render_command("study_x", ["seeds=[0, 1]"], out, None)
    page = format_page(Results(study, out), "results.png", command, date(2026, 3, 1))
    first, rest = page.split("\n", 1)
    assert first == f"<!-- Written by: bridgeta study study_x 'seeds=[0, 1]' --out {out} --render-only -->"
    for line in ("- date: 2026-03-01", "- trained on: cpu on Toy CPU", "- revision of the runs: abc1234"):
        assert line in rest.splitlines()
    assert "- runs: 10 of 31" in rest
    assert "Each budget has teachers of its own, from which is hidden" in rest
    assert "lidar (`teacher.sensors=lidar`)" in rest
    assert "## Labels: tenth (`data.labelled=0.1`)\n\nNo run of this budget is finished." in rest
    assert "- not finished: teachers/lidar/full/seed0, teachers/fusion/tenth/seed0" in rest
    assert "![Differences to labels by arm](results.png)" in rest


def test_the_page_says_when_all_budgets_share_their_teachers(filled, make_study):
    page = format_page(Results(make_study(shared_teachers=True), filled[1]), "x.png", "x", date(2026, 3, 1))
    assert "Teachers train on all labels in every budget, unless their settings say otherwise: fusion, lidar" in page


def test_runs_with_other_settings_are_named_on_the_page(filled, make_study):
    _, out = filled
    page = format_page(Results(make_study("train.gamma=1"), out), "x.png", "x", date(2026, 3, 1))
    assert "- 10 runs were trained with train.gamma = 2.0 instead of 1.0" in page


def test_a_page_needs_nothing_but_records_and_logs(filled, tmp_path):
    study, out = filled
    for path in out.rglob("experiment.yaml"):
        path.unlink()
    shutil.move(out, tmp_path / "moved")
    page, figure = render_study(study, tmp_path / "moved", tmp_path / "docs" / "study.md", "x")
    assert (page, figure) == (tmp_path / "docs/study.md", tmp_path / "docs/study.png")
    assert "| A1 | 3 | 34.00 ± 2.65 |" in page.read_text()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_page_and_figure_of_two_renders_at_once_are_of_one_of_them(filled, tmp_path, monkeypatch):
    study, out = filled
    second_wrote = threading.Event()

    def write_figure(results, path):
        path.write_text(threading.current_thread().name)

    def format_named_page(*_):
        if threading.current_thread().name == "first":
            second_wrote.wait(0.5)  # it does not, unless it writes in between
        return threading.current_thread().name

    def render():
        render_study(study, out, tmp_path / "docs" / "study.md", "x")
        if threading.current_thread().name == "second":
            second_wrote.set()

    monkeypatch.setattr(report, "write_figure", write_figure)
    monkeypatch.setattr(report, "format_page", format_named_page)
    threads = [threading.Thread(target=render, name=name) for name in ("first", "second")]
    threads[0].start()
    while not (tmp_path / "docs" / "study.png").exists():
        threads[0].join(0.01)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "docs/study.md").read_text() == (tmp_path / "docs/study.png").read_text()
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["study.md", "study.png"]


def test_the_published_page_is_that_of_the_published_runs():
    root = Path(__file__).parents[3]
    published = (root / "docs" / "results.md").read_text()
    command = published.splitlines()[0].removeprefix("<!-- Written by: ").removesuffix(" -->")
    configuration, *rest = shlex.split(command)[2:]
    overrides, options = rest[: rest.index("--out")], rest[rest.index("--out") :]
    results = Results(load_study(configuration, overrides), root / options[1])
    day = date.fromisoformat(published.split("- date: ")[1].split()[0])
    assert format_page(results, "results.png", command, day) == published
