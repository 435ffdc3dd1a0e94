"""Finished runs, collected in one file, and their statistics against numpy, SciPy and closed forms."""

from __future__ import annotations

import json
import math
from datetime import date
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bridgeta_core.study.report import format_page
from bridgeta_core.study.results import (
    Results,
    collect,
    compute_gap_closed,
    compute_median_ratio,
    compute_spread,
    subtract,
)
from bridgeta_core.study.study import render_study
from bridgeta_core.utils.errors import BridgeTAError

shares = st.floats(0, 1, allow_subnormal=False)
by_seed = st.dictionaries(st.integers(0, 9), shares, max_size=8)


def test_collected_runs_give_the_same_page(filled, tmp_path):
    study, out = filled
    target = tmp_path / "kept" / "study.json"
    assert collect(study, out, target) == 10
    pages = [format_page(Results(study, place), "x.png", "x", date(2026, 3, 1)) for place in (out, target)]
    assert pages[0] == pages[1]
    assert target.read_text().count("\n") < 20  # a line per run
    first = target.read_bytes()
    collect(study, out, target)
    assert target.read_bytes() == first


def test_collected_runs_know_their_settings(filled, make_study, tmp_path):
    study, out = filled
    target = tmp_path / "study.json"
    collect(study, out, target)
    other = make_study("train.gamma=1")
    assert Results(other, target).deviations == Results(other, out).deviations
    assert Results(other, target).deviations["A0/full/seed0"] == ["train.gamma = 2.0 instead of 1.0"]


def test_there_is_nothing_to_collect_or_render_in_an_empty_folder(make_study, tmp_path):
    study = make_study()
    with pytest.raises(BridgeTAError, match="has no finished run to collect"):
        collect(study, tmp_path, tmp_path / "study.json")
    with pytest.raises(BridgeTAError, match="has no finished run of this study"):
        render_study(study, tmp_path, tmp_path / "x.md", "x")
    with pytest.raises(BridgeTAError, match="is a folder"):
        collect(study, tmp_path, tmp_path)


@pytest.mark.parametrize("content", ["no JSON", "{}", "[]", '{"format": "x/1"}', '{"format": "bridgeta-study/1"}'])
def test_a_damaged_file_of_runs_is_one_clear_message(make_study, tmp_path, content):
    path = tmp_path / "study.json"
    path.write_text(content)
    with pytest.raises(BridgeTAError, match=r"study.json: holds no collected runs .*--collect") as error:
        Results(make_study(), path)
    assert error.value.exit_code == 2


def list_places(value, path=()):
    """List the paths of all values in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in items for place in list_places(each, (*path, key)))]


def test_collected_runs_of_other_types_are_a_page_or_one_message(filled, tmp_path):
    study, out = filled
    target = tmp_path / "study.json"
    collect(study, out, target)
    whole, rng, refused = target.read_text(), np.random.default_rng(0), 0
    places = [path for path in list_places(json.loads(whole)) if path]
    others = [None, True, "x", 3, -0.5, [], {}, {"x": "y"}, [1]]
    for number in rng.choice(len(places), 80, replace=False):
        content = json.loads(whole)
        *parents, last = places[number]
        holder = reduce(lambda value, key: value[key], parents, content)
        if rng.random() < 0.2:
            del holder[last]
        else:
            holder[last] = others[rng.integers(len(others))]
        target.write_text(json.dumps(content))
        try:
            assert format_page(Results(study, target), "x.png", "x", date(2026, 3, 1))
        except BridgeTAError as error:
            assert "study.json" in str(error)  # noqa: PT017
            refused += 1
    assert 20 < refused < 80


def test_a_broken_record_is_named(filled):
    study, out = filled
    (out / "A1/full/seed0/run.json").write_text('{"kind": "distill"}')
    with pytest.raises(BridgeTAError, match=r"A1/full/seed0/run.json: is not the record of a finished .*peak_memory"):
        Results(study, out)


@given(st.lists(shares, min_size=2, max_size=20))
def test_the_spread_has_mean_deviation_and_standard_error(values):
    found = compute_spread(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-12)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert math.isnan(compute_spread([0.4]).deviation)
    assert math.isnan(compute_spread([0.4]).standard_error)
    assert compute_spread([]) is None
    assert compute_spread([math.nan]) is None


def test_values_that_are_not_scored_do_not_count():
    assert compute_spread([0.1, math.nan, 0.3]).n == 2
    assert compute_spread([0.1, math.nan, 0.3]).mean == pytest.approx(0.2)
    assert subtract({0: 1.0, 1: math.nan}, {0: 0.5, 1: 0.5}) == {0: 0.5}


@given(by_seed, by_seed)
def test_differences_are_of_the_seeds_that_both_have(a, b):
    assert subtract(a, b) == {seed: a[seed] - b[seed] for seed in a if seed in b}


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=10))
def test_the_paired_error_is_that_of_the_paired_t_test(pairs):
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    found = compute_spread(subtract(a, b).values())
    x = np.array(pairs)
    assert found.mean == pytest.approx(np.mean(x[:, 0] - x[:, 1]), abs=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(x[:, 0] - x[:, 1]), abs=1e-12)


@given(shares, st.floats(0.01, 1), st.floats(-2, 2))
def test_the_gap_closed_is_the_fraction_of_the_way_to_the_teacher(start, gap, fraction):
    baseline = {0: start, 1: start + 0.1, 5: 0.3}
    teacher = {seed: value + gap for seed, value in baseline.items()}
    arm = {seed: value + fraction * gap for seed, value in baseline.items() if seed < 5}
    assert compute_gap_closed(arm, baseline, teacher) == pytest.approx(fraction, abs=1e-9)


def test_without_a_gap_there_is_none_to_close():
    assert math.isnan(compute_gap_closed({0: 0.5}, {0: 0.4}, {0: 0.4}))
    assert math.isnan(compute_gap_closed({0: 0.5}, {0: 0.4}, {1: 0.9}))


def test_time_is_compared_seed_by_seed():
    assert compute_median_ratio({0: 2.0, 1: 9.0, 2: 4.0}, {0: 1.0, 1: 3.0, 2: 4.0, 3: 1.0}) == 2
    assert math.isnan(compute_median_ratio({0: 1.0}, {1: 1.0}))
