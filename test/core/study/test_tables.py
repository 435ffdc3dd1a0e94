"""Tables and page of runs made by hand, against numbers worked out by hand."""

from __future__ import annotations

import csv
import shutil
from datetime import date

import pytest

from bridgeta_core.study import tables, text
from bridgeta_core.study.collect import collect
from bridgeta_core.study.plan import plan
from bridgeta_core.study.report import markdown
from bridgeta_core.study.results import Results
from bridgeta_core.study.study import render, rendering_command
from bridgeta_core.utils.errors import BridgeTAError

MIOU = {
    "teachers/fusion/seed0": 0.40,
    **{f"A0/full/seed{seed}": miou for seed, miou in enumerate((0.30, 0.31, 0.32))},
    **{f"A1/full/seed{seed}": miou for seed, miou in enumerate((0.32, 0.33, 0.37))},
    **{f"A2/full/seed{seed}": miou for seed, miou in enumerate((0.35, 0.36))},
    "R1/full/seed2": 0.312,
}
PACE = {"A0": 0.5, "A1": 0.75, "A2": 1.0, "R1": 0.6, "fusion": 0.9}


def classes(divider: float | None) -> dict[str, object]:
    return {"drivable_area": {"iou": 0.8, "iou_at_0.5": 0.7}, "divider": {"iou": divider, "iou_at_0.5": None}}


@pytest.fixture
def filled(make_study, write_run, tmp_path):
    """The study and its folder: A0 and A1 with three seeds, A2 with two, R1 with one, all on one budget."""
    study, out = make_study(), tmp_path / "out"
    for run in plan(study, out):
        if run.name not in MIOU:
            continue
        miou = MIOU[run.name]
        details = {
            "classes": classes(None if run.arm == "R1" else miou / 2),
            "ranges": {"0-20 m": {"miou": miou + 0.1}, "20-35 m": {"miou": miou}},
            "conditions": {"day": {"miou": miou}, "night": {"miou": miou / 4}},
        }
        counts = {"student": 1_234_567, "train_only": 170_000} if run.kind == "distill" else None
        more = {"parameters": counts} if counts else {}
        write_run(run, miou, miou - 0.1, details, seconds_per_step=PACE[run.arm], **more)
        if run.arm in ("A1", "A2"):
            path = run.folder / "logs/version_0/metrics.csv"
            path.parent.mkdir(parents=True)
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", "train/slack_F", "val/miou", "val/assistant_miou"])
                if run.arm == "A2":
                    writer.writerows([(0, 10, 5.0, "", ""), (1, 99, 0.25, "", ""), (1, 100, 0.75, "", "")])
                    writer.writerow((1, 100, "", miou, 0.375))
                else:
                    writer.writerow((1, 100, "", miou, ""))
    return study, out


def test_the_main_table(filled):
    study, out = filled
    assert tables.main_table(Results(study, out), "full").splitlines() == [
        "| arm | n | mIoU | minus A0 | minus A1 | gap closed | mIoU at 0.5 | minus A0 at 0.5 | minus A1 at 0.5 "
        "| step time | peak memory | train-only parameters |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| labels | 3 | 31.00 ± 1.00 | - | -3.00 ± 1.00 (3) | - | 21.00 ± 1.00 | - | -3.00 ± 1.00 (3) "
        "| 1.00x | 900 MB | 0 |",
        "| A1 | 3 | 34.00 ± 2.65 | +3.00 ± 1.00 (3) | - | 33 % | 24.00 ± 2.65 | +3.00 ± 1.00 (3) | - "
        "| 1.50x | 900 MB | 170 k |",
        "| BridgeTA | 2 | 35.50 ± 0.71 | +5.00 ± 0.00 (2) | +3.00 ± 0.00 (2) | 53 % | 25.50 ± 0.71 "
        "| +5.00 ± 0.00 (2) | +3.00 ± 0.00 (2) | 2.00x | 900 MB | 170 k |",
        "| R1 (reference) | 1 | 31.20 ± - | -0.80 ± - (1) | -5.80 ± - (1) | -10 % | 21.20 ± - | -0.80 ± - (1) "
        "| -5.80 ± - (1) | 1.20x | 900 MB | 170 k |",
        "| teacher: fusion | 1 | 40.00 ± - | +9.00 ± 0.58 (3) | +6.00 ± 1.53 (3) | - | 30.00 ± - "
        "| +9.00 ± 0.58 (3) | +6.00 ± 1.53 (3) | - | - | - |",
    ]


def test_the_weights_that_are_scored_can_be_chosen(filled):
    study, out = filled
    study.weights = "best"
    assert "| labels | 3 | 36.00 ± 1.00 |" in tables.main_table(Results(study, out), "full")


def test_the_tables_of_details(filled):
    results = Results(*filled)
    by_class = tables.detail_table(results, "full", lambda scores: scores.classes)
    assert by_class.splitlines() == [
        "| arm | drivable_area | divider |",
        "| --- | ---: | ---: |",
        "| labels | 80.0 | 15.5 |",
        "| A1 | 80.0 (0.0) | 17.0 (+1.5) |",
        "| BridgeTA | 80.0 (0.0) | 17.8 (+2.5) |",
        "| R1 (reference) | 80.0 (0.0) | - |",
        "| teacher: fusion | 80.0 | 20.0 |",
    ]
    by_range = tables.detail_table(results, "full", lambda scores: scores.ranges)
    assert "| A1 | 44.0 (+3.0) | 34.0 (+3.0) |" in by_range
    by_condition = tables.detail_table(results, "full", lambda scores: scores.conditions)
    assert "| arm | day | night |" in by_condition
    assert "| BridgeTA | 35.5 (+5.0) | 8.9 (+1.2) |" in by_condition


def test_only_arms_that_log_an_assistant_are_explained(filled):
    assert tables.explanation_table(Results(*filled), "full").splitlines() == [
        "| arm | slack_F | assistant's mIoU | student's mIoU |",
        "| --- | ---: | ---: | ---: |",
        "| BridgeTA | 0.5 | 37.5 | 35.5 |",
    ]
    assert tables.explanation_table(Results(*filled), "tenth") == ""


def test_the_table_of_costs(filled):
    assert tables.cost_table(Results(*filled), "full").splitlines()[2:5:2] == [
        "| labels | 600 | 0.5 | 5 min 00 s | 900 MB | 1.00 M | 0 | 80 | 0 |",
        "| BridgeTA | 600 | 1 | 5 min 00 s | 900 MB | 1.23 M | 170 k | 80 | 0 |",
    ]


def test_the_page_tells_where_its_figures_come_from(filled):
    study, out = filled
    command = rendering_command("study_x", ["seeds=[0, 1]"], out, None)
    page = markdown(Results(study, out), "results.png", command, date(2026, 3, 1))
    first, rest = page.split("\n", 1)
    assert first == f"<!-- Written by: bridgeta study study_x 'seeds=[0, 1]' --out {out} --render-only -->"
    for line in ("- date: 2026-03-01", "- trained on: cpu on Toy CPU", "- revision of the runs: abc1234"):
        assert line in rest.splitlines()
    assert "- runs: 10 of 29" in rest
    assert "Teachers train on all labels in every budget" in " ".join(rest.split())
    assert "lidar (`teacher.sensors=lidar`)" in rest
    assert "## Labels: tenth (`data.labelled=0.1`)\n\nNo run of this budget is finished." in rest
    assert "- not finished: teachers/lidar/seed0, A0_time/full/seed0" in rest
    assert "![Differences to labels by arm](results.png)" in rest


def test_runs_with_other_settings_are_named_on_the_page(filled, make_study):
    _, out = filled
    page = markdown(Results(make_study("train.gamma=1"), out), "x.png", "x", date(2026, 3, 1))
    assert "- 10 runs were trained with train.gamma = 2.0 instead of 1.0" in page


def test_a_page_needs_nothing_but_records_and_logs(filled, tmp_path):
    study, out = filled
    for path in out.rglob("experiment.yaml"):
        path.unlink()
    shutil.move(out, tmp_path / "moved")
    page, figure = render(study, tmp_path / "moved", tmp_path / "docs" / "study.md", "x")
    assert (page, figure) == (tmp_path / "docs/study.md", tmp_path / "docs/study.png")
    assert "| A1 | 3 | 34.00 ± 2.65 |" in page.read_text()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_what_is_collected_gives_the_same_page(filled, tmp_path):
    study, out = filled
    (out / "A2/full/seed0/student.safetensors").write_bytes(b"x" * 1000)
    assert collect(study, out, tmp_path / "kept") == len(MIOU)
    pages = [markdown(Results(study, folder), "x.png", "x", date(2026, 3, 1)) for folder in (out, tmp_path / "kept")]
    assert pages[0] == pages[1]
    kept = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert kept == {"run.json", "experiment.yaml", "metrics.csv"}


def test_there_is_nothing_to_collect_or_to_render_in_an_empty_folder(make_study, tmp_path):
    study = make_study()
    with pytest.raises(BridgeTAError, match="has no finished run to collect"):
        collect(study, tmp_path, tmp_path / "kept")
    with pytest.raises(BridgeTAError, match="has no finished run of this study"):
        render(study, tmp_path, tmp_path / "x.md", "x")
    with pytest.raises(BridgeTAError, match="own folder"):
        collect(study, tmp_path, tmp_path)


def test_a_broken_record_is_named(filled):
    study, out = filled
    (out / "A1/full/seed0/run.json").write_text('{"kind": "distill"}')
    with pytest.raises(BridgeTAError, match=r"A1/full/seed0/run.json: is not the record of a finished .*peak_memory"):
        Results(study, out)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.signed(0.01234), "+1.23"),
        (text.signed(-0.00001), "0.00"),
        (text.signed(float("nan")), "-"),
        (text.memory(12_345.6), "12.3 GB"),
        (text.count(999), "999"),
        (text.count(999_499), "999 k"),
        (text.count(999_500), "1.00 M"),
        (text.duration(59.4), "59 s"),
        (text.duration(61), "1 min 01 s"),
        (text.duration(3599.6), "1 h 00 min"),
        (text.duration(7380), "2 h 03 min"),
        (text.significant(0.00123456), "0.00123"),
        (text.table(["a|b"], [["c"]]), "| a\\|b |\n| --- |\n| c |"),
    ],
)
def test_numbers_are_short(shown, expected):
    assert shown == expected
