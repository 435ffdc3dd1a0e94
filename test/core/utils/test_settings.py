"""Old names of settings keep working."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.utils import settings
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.settings import from_mapping, rename_old_keys, setting, to_mapping


@dataclass
class Inner:
    size: int = setting(1, "of it")


@dataclass
class Outer:
    RENAMED: ClassVar[Mapping[str, str]] = {"length": "inner.size"}

    inner: Inner = field(default_factory=Inner)


@dataclass
class Whole:
    outer: Outer = field(default_factory=Outer)


@pytest.fixture(autouse=True)
def _nothing_announced_yet(monkeypatch):
    monkeypatch.setattr(settings, "_announced", set())


def test_an_old_key_sets_the_new_one_and_says_so_once(capsys):
    for _ in range(2):
        assert from_mapping(Whole, {"outer": {"length": 5}}).outer.inner.size == 5
    assert capsys.readouterr().err == "bridgeta: the setting outer.length is now called outer.inner.size\n"


def test_an_old_key_works_as_an_override(capsys):
    assert from_mapping(Whole, {"outer": {"inner": {"size": 3}}}, ["outer.length=7"]).outer.inner.size == 7
    assert "outer.inner.size" in capsys.readouterr().err


def test_a_wrong_value_of_an_old_key_names_the_new_one():
    with pytest.raises(BridgeTAError, match=r"outer\.inner\.size"):
        from_mapping(Whole, {"outer": {"length": "long"}})


def test_a_setting_under_both_names_is_refused():
    with pytest.raises(BridgeTAError, match=r"give only outer\.inner\.size") as caught:
        from_mapping(Whole, {"outer": {"length": 5, "inner": {"size": 5}}})
    assert caught.value.exit_code == 2


def test_renaming_leaves_the_original_and_can_be_silent(capsys):
    content = {"outer": {"length": 5}}
    assert rename_old_keys(Whole, content, announce=False) == {"outer": {"inner": {"size": 5}}}
    assert content == {"outer": {"length": 5}}
    assert not capsys.readouterr().err


def test_augmentation_of_older_files_moves_into_its_block(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("data: {flip: false, image_resize: [0.8, 1.1]}\n")
    augment = load(Experiment, path, ["data.colour=0"]).data.augment
    assert (augment.flip, augment.image_resize, augment.colour) == (False, [0.8, 1.1], 0.0)


@dataclass
class Grown:
    old: int = 1
    new: int = setting(2, "added", added=True)
    names: list[str] = field(default_factory=list, metadata={"added": True})


def test_an_added_setting_is_written_only_where_it_is_not_the_default():
    assert to_mapping(Grown()) == {"old": 1}
    assert to_mapping(Grown(new=3, names=["a"])) == {"old": 1, "new": 3, "names": ["a"]}
    for settings_ in (Grown(), Grown(old=5, new=3), Grown(names=["a"])):
        assert from_mapping(Grown, to_mapping(settings_)) == settings_
