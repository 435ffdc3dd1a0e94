"""Tables of runs made by hand, against numbers worked out by hand."""

from __future__ import annotations

from datetime import date

import pytest

from bridgeta_core.study import tables
from bridgeta_core.study.plan import plan
from bridgeta_core.study.report import format_page
from bridgeta_core.study.results import Results


def test_the_main_table(filled):
    study, out = filled
    assert tables.format_main_table(Results(study, out), "full").splitlines() == [
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


def test_every_budget_has_the_gap_to_its_own_teacher(filled, write_run):
    study, out = filled
    miou = {"teachers/fusion/tenth/seed0": 0.30, "A0/tenth/seed0": 0.20, "A2/tenth/seed0": 0.25}
    for run in plan(study, out):
        if run.name in miou:
            write_run(run, miou[run.name], frames={"labelled": 8, "unlabelled": 72, "validation": 20})
    results = Results(study, out)
    full, tenth = (tables.format_main_table(results, budget) for budget in study.budgets)
    assert "| BridgeTA | 1 | 25.00 ± - | +5.00 ± - (1) | - | 50 % |" in tenth
    assert "| teacher: fusion | 1 | 30.00 ± - |" in tenth
    assert "| 53 % |" in full
    assert "| teacher: fusion | 1 | 40.00 ± - |" in full
    assert "| teacher: fusion | 600 | 0.5 | 5 min 00 s | 900 MB | 2.00 M | 0 | 8 | 72 |" in tables.format_cost_table(
        results, "tenth"
    )


def test_the_weights_that_are_scored_can_be_chosen(filled):
    study, out = filled
    study.weights = "best"
    assert "| labels | 3 | 36.00 ± 1.00 |" in tables.format_main_table(Results(study, out), "full")


def test_the_tables_of_details(filled):
    results = Results(*filled)
    by_class = tables.format_detail_table(results, "full", lambda scores: scores.classes)
    assert by_class.splitlines() == [
        "| arm | drivable_area | divider |",
        "| --- | ---: | ---: |",
        "| labels | 80.0 | 15.5 |",
        "| A1 | 80.0 (0.0) | 17.0 (+1.5) |",
        "| BridgeTA | 80.0 (0.0) | 17.8 (+2.5) |",
        "| R1 (reference) | 80.0 (0.0) | - |",
        "| teacher: fusion | 80.0 | 20.0 |",
    ]
    by_range = tables.format_detail_table(results, "full", lambda scores: scores.ranges)
    assert "| A1 | 44.0 (+3.0) | 34.0 (+3.0) |" in by_range
    by_condition = tables.format_detail_table(results, "full", lambda scores: scores.conditions)
    assert "| arm | day | night |" in by_condition
    assert "| BridgeTA | 35.5 (+5.0) | 8.9 (+1.2) |" in by_condition


def test_only_arms_that_log_an_assistant_are_explained(filled):
    assert tables.format_explanation_table(Results(*filled), "full").splitlines() == [
        "| arm | slack_F | assistant's mIoU | student's mIoU |",
        "| --- | ---: | ---: | ---: |",
        "| BridgeTA | 0.5 | 37.5 | 35.5 |",
    ]
    assert tables.format_explanation_table(Results(*filled), "tenth") == ""


def test_the_table_of_costs(filled):
    assert tables.format_cost_table(Results(*filled), "full").splitlines()[2:5:2] == [
        "| labels | 600 | 0.5 | 5 min 00 s | 900 MB | 1.00 M | 0 | 80 | 0 |",
        "| BridgeTA | 600 | 1 | 5 min 00 s | 900 MB | 1.23 M | 170 k | 80 | 0 |",
    ]


def test_the_table_of_costs_states_the_time_alone_and_with_the_teacher(filled, write_run):
    study, out = filled
    for run in plan(study, out):
        if run.name in ("A0/full/seed0", "A2/full/seed0", "teachers/fusion/full/seed0"):
            pace = {"A0": 0.5, "A2": 1.0, "fusion": 2.0}[run.arm]
            write_run(run, seconds_per_step=pace, cache_seconds=10.0)
    first, _, labels, direct, bridgeta, *_, teacher = tables.format_cost_table(Results(study, out), "full").splitlines()
    assert first.endswith("| training | with teacher and cache |")
    assert labels.endswith("| 5 min 00 s | 5 min 10 s |")  # 600 steps of 0.5 s, and 10 s
    assert direct.endswith("| 7 min 30 s | ? |")
    assert bridgeta.endswith("| 10 min 00 s | 30 min 20 s |")  # and 600 steps of 2 s, and 10 s
    assert teacher.endswith("| 20 min 00 s | 20 min 10 s |")
    page = format_page(Results(study, out), "x.png", "x", date(2026, 3, 1))
    assert "as if it taught this run alone" in page


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (tables.format_signed(0.01234), "+1.23"),
        (tables.format_signed(-0.00001), "0.00"),
        (tables.format_signed(float("nan")), "-"),
        (tables.format_memory(12_345.6), "12.3 GB"),
        (tables.format_count(999), "999"),
        (tables.format_count(999_499), "999 k"),
        (tables.format_count(999_500), "1.00 M"),
        (tables.format_duration(59.4), "59 s"),
        (tables.format_duration(61), "1 min 01 s"),
        (tables.format_duration(3599.6), "1 h 00 min"),
        (tables.format_duration(7380), "2 h 03 min"),
        (tables.format_significant(0.00123456), "0.00123"),
        (tables.format_table(["a|b"], [["c"]]), "| a\\|b |\n| --- |\n| c |"),
    ],
)
def test_numbers_are_short(shown, expected):
    assert shown == expected
