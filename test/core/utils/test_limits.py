"""What a description asks for is measured before anything is built of it."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field

import pytest
import yaml

from bridgeta_core.utils.limits import (
    BoundedComposer,
    FastLoader,
    check_plain,
    parse_json,
    read_limited,
    select_fields,
)


class Loader(BoundedComposer, yaml.SafeLoader):
    """The slow loader of PyYAML, bounded."""


@dataclass
class Record:
    name: str
    count: int = 0
    share: float = 0.0
    sizes: list[int] = field(default_factory=list)
    table: dict[str, dict[str, float | None]] = field(default_factory=dict)


def test_json_that_nests_without_end_is_a_value_error():
    for text in ("[" * 100_000, '{"a":' * 100_000, b"[" * 100_000):
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
            parse_json(text)
    assert parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_a_file_of_more_than_the_limit_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_limited(tmp_path / "a", 100) == b"x" * 100
    with pytest.raises(ValueError, match="more than 99 bytes"):
        read_limited(tmp_path / "a", 99)
    with pytest.raises(ValueError, match="more than 5,000,000 bytes"):
        read_limited("/dev/zero", 5_000_000)  # its size is said to be zero


@pytest.mark.parametrize("loader", [Loader, FastLoader])
def test_aliases_mean_what_they_mean_in_yaml(loader):
    text = "a: &k [1, {x: 2}]\nb: *k\nc: {<<: &m {y: 1}, z: *k}\nd: *m\n"
    assert yaml.load(text, loader) == yaml.safe_load(text)


@pytest.mark.parametrize("loader", [Loader, FastLoader])
@pytest.mark.parametrize("line", ["{name}: &{name} [{all}]", "{name}: &{name} {{<<: [{all}]}}"])
def test_aliases_of_aliases_do_not_expand_to_gigabytes(loader, line):
    text = "a: &a {x: 1, y: 2}\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True):
        text += line.format(name=name, all=", ".join([f"*{before}"] * 10)) + "\n"
    with pytest.raises(yaml.YAMLError, match="more than 300,000 values"):
        yaml.load(text, loader)


@pytest.mark.parametrize("loader", [Loader, FastLoader])
@pytest.mark.parametrize("text", ["&a [*a]", "&a {x: {y: *a}}", "&a {<<: *a}"])
def test_a_value_that_holds_itself_is_refused(loader, text):
    with pytest.raises(yaml.YAMLError, match="stands for what it is part of"):
        yaml.load(text, loader)


@pytest.mark.parametrize("loader", [Loader, FastLoader])
@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_yaml_that_nests_without_end_is_refused(loader, opening):
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        yaml.load(opening * 50_000, loader)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (json.loads("[" * 50 + "]" * 50), "nested too deeply"),
        ({"a": [10**400]}, "more than 64 bits"),
        ({"a": {"b": "${oc.env:HOME}"}}, "is a reference"),
        ({"${x}": 1}, "is a reference"),
        ({"a": [datetime.date(2022, 1, 1)]}, "2022-01-01 is a date"),
        ({"a": {b"x": 1}}, "is a bytes"),
        ({"a": {"b": {1, 2}}}, "is a set"),
    ],
)
def test_settings_that_are_no_plain_values_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        check_plain(value)
    check_plain({"a": [1, 2.5, None, True, "text", {"b": -(2**63)}]})


def test_fields_are_taken_by_name_and_others_are_left_out():
    content = {"name": "a", "share": 1, "table": {"x": {"y": None, "z": 0.5}}, "later": 3}
    assert select_fields(Record, content) == {"name": "a", "share": 1, "table": {"x": {"y": None, "z": 0.5}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no mapping"),
        ({"name": None}, "name is None, not str"),
        ({"count": True}, "count is True, not int"),
        ({"count": 2.0}, "count is 2.0, not int"),
        ({"count": 2**63}, "count is 9223372036854775808, not int"),
        ({"share": float("nan")}, "share is nan, not float"),
        ({"share": 10**400}, "share is 1000"),
        ({"sizes": {}}, "sizes is {}, not a list"),
        ({"sizes": [1, [2]]}, r"sizes\[1\] is \[2\], not int"),
        ({"table": [1]}, r"table is \[1\], not a mapping"),
        ({"table": {"x": {"y": "1"}}}, "table.x.y is '1', not float"),
    ],
)
def test_a_field_of_another_type_is_named(content, message):
    with pytest.raises(ValueError, match=message):
        select_fields(Record, content)
