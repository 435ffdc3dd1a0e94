"""Names from outside never lead out of their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridgeta_core.utils.names import is_name, leads_outside, make_name

FOLDER = Path("/data/cache")


@given(st.text())
@example("../../../EVIL")
@example("/etc/passwd")
@example(".")
@example("a" * 1000)
@example("\udcff")
def test_a_made_name_is_one_file_in_its_folder(text: str) -> None:
    name = make_name(text)
    assert is_name(name)
    assert len(os.fsencode(name)) <= 100
    assert Path(os.path.normpath(FOLDER / f"{name}-labels.npy")).parent == FOLDER


@pytest.mark.parametrize("name", ["scene-0061", "v1.0-mini", "boston-seaport"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert is_name(name)
    assert make_name(name) == name


@given(st.lists(st.sampled_from(["..", ".", "a", "", "b.jpg", "..."]), min_size=1))
@example(["", "etc", "passwd"])
def test_a_path_stays_inside_unless_it_says_otherwise(parts: list[str]) -> None:
    path = "/".join(parts)
    inside = os.path.commonpath([FOLDER, os.path.normpath(FOLDER / path)]) == str(FOLDER)
    assert leads_outside(path) or inside


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a\\b", "a\0b", "x" * 256])
def test_what_is_no_single_name_is_none(text: str) -> None:
    assert not is_name(text)
