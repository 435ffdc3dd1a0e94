"""Reading a table as a stream, against the json module on the whole of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.data.nuscenes import json_table as jsontable
from bridgeta_core.data.nuscenes.json_table import FLAG, INTEGER, STRING, numbers, read_table
from bridgeta_core.utils.errors import BridgeTAError

FIELDS = {"token": STRING, "n": INTEGER, "f": FLAG, "v": numbers(2), "m": numbers(2, 2, or_empty=True)}

finite = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40))
pairs = st.lists(finite, min_size=2, max_size=2)
records = st.fixed_dictionaries(
    {
        "token": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
        "n": st.integers(-(2**63), 2**63 - 1),
        "f": st.booleans(),
        "v": pairs,
        "m": st.one_of(st.just([]), st.lists(pairs, min_size=2, max_size=2)),
        "rest": st.recursive(st.none() | st.text(max_size=4), lambda s: st.lists(s) | st.dictionaries(st.text(), s)),
    }
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("table") / "table.json"


@given(
    rows=st.lists(records, min_size=1, max_size=8),
    chunk=st.integers(1, 80),
    indent=st.sampled_from([None, 0, 2]),
    plain=st.booleans(),
)
def test_columns_are_the_records_values_at_any_chunk_size(path, rows, chunk, indent, plain):
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=not plain), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontable, "_CHUNK", chunk)
        columns = read_table(path, FIELDS)
    assert [token.decode() for token in columns["token"].tolist()] == [row["token"] for row in rows]
    assert columns["n"].tolist() == [row["n"] for row in rows]
    assert columns["f"].tolist() == [row["f"] for row in rows]
    assert columns["v"].tolist() == [list(map(float, row["v"])) for row in rows]
    expected = [row["m"] or np.full((2, 2), np.nan) for row in rows]
    np.testing.assert_array_equal(columns["m"], np.array(expected, dtype=float))


def row(**changes):
    """A good record, with some values changed."""
    return {"token": "a", "n": 1, "f": True, "v": [1, 2.5], "m": []} | changes


@pytest.mark.parametrize("chunk", [1, 30, 10_000])
@given(length=st.integers(0, 600))
def test_a_table_cut_anywhere_is_an_error_that_names_it(path, chunk, length):
    whole = json.dumps([row(n=i) for i in range(12)], indent=0)
    path.write_text(whole[: min(length, len(whole) - 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontable, "_CHUNK", chunk)
        with pytest.raises(BridgeTAError, match=r"table\.json: .*(truncated|is empty).*Extract the metadata archive"):
            read_table(path, FIELDS)


def test_the_place_of_a_cut_is_told(path):
    whole = json.dumps([row(n=i) for i in range(5000)])
    start = whole.index('{"token": "a", "n": 4321')
    path.write_text(whole[: start + 20])
    with pytest.raises(BridgeTAError, match=r"is truncated: it ends in record 4,321, about byte (\d+,\d+)\.") as error:
        read_table(path, FIELDS)
    told = int(str(error.value).split("about byte ")[1].split(".")[0].replace(",", ""))
    assert abs(told - start) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "has no records"),
        ("[\n]\n", "has no records"),
        ('{"token": 1}', r"is not a list of records; it begins with '\{\"token\": 1\}'"),
        (
            "version https://git-lfs.github.com/spec/v1\noid",
            "not a list of records; it begins with 'version https://git-",
        ),
        ("[1, 2]", "record 0 is no object"),
        (f"[{json.dumps(row())}, [1]]", "record 1 is no object"),
        (json.dumps([row(), {"token": "b", "n": 1, "f": True}]), "record 1 has no v, m"),
        (json.dumps([row()]) + "]", "is not JSON, perhaps damaged"),
        (json.dumps([row()]) + json.dumps([row()]), "is not JSON, perhaps damaged"),
        (json.dumps([row()]) + "\0\0", "is not JSON, perhaps damaged"),
        (f"[{json.dumps(row())} {json.dumps(row())}]", "is not JSON, perhaps damaged or truncated, at record 1, about"),
        (f"[{json.dumps(row())},]", "is not JSON, perhaps damaged or truncated, at record 1, about byte 58"),
        (f"[{json.dumps(row())}, " + "\0" * 3_000_000, "is not JSON, perhaps damaged or truncated, at record 1, about"),
        ('[{"token": ' + "[" * 100_000, "record 0 is nested too deeply"),
    ],
)
def test_what_is_no_table_is_said_so(path, content, message):
    path.write_text(content)
    with pytest.raises(BridgeTAError, match=rf"table\.json: .*{message}.*Extract the metadata archive of this version"):
        read_table(path, FIELDS)


def test_a_table_that_is_no_text_or_cannot_be_read_is_said_so(path):
    path.write_bytes(json.dumps([row()] * 3).encode()[:-1] + b"\xff\xfe]")
    with pytest.raises(BridgeTAError, match="is not UTF-8 text after record 0"):
        read_table(path, FIELDS)
    with pytest.raises(BridgeTAError, match=r"cannot be read.*directory"):
        read_table(path.parent, FIELDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": 5}, "token of record 2 .*is not a text of at most 1000 bytes: 5"),
        ({"token": "x" * 1001}, 'token of record 2 .*is not a text of at most 1000 bytes: "xxx'),
        ({"token": "\ud800"}, "token of record 2 .*is not a text"),
        ({"n": "1"}, 'n of record 2 .*is not a whole number: "1"'),
        ({"n": 1.5}, "n of record 2 .*is not a whole number: 1.5"),
        ({"n": None}, "n of record 2 .*is not a whole number: null"),
        ({"n": 2**64}, "n of record 2 .*is not a whole number"),
        ({"f": 1}, "f of record 2 .*is not true or false: 1"),
        ({"v": [1]}, r"v of record 2 .*is not a list of 2 finite numbers: \[1\]"),
        ({"v": 3}, "v of record 2 .*is not a list of 2 finite numbers: 3"),
        ({"v": "12"}, 'v of record 2 .*is not a list of 2 finite numbers: "12"'),
        ({"v": ["1", "2"]}, "v of record 2 .*is not a list of 2 finite numbers"),
        ({"v": [1, float("nan")]}, "v of record 2 .*is not a list of 2 finite numbers"),
        ({"v": []}, "v of record 2 .*is not a list of 2 finite numbers"),
        ({"m": [[1, 2]]}, "m of record 2 .*is not a list of 2 x 2 finite numbers or an empty list"),
        ({"m": None}, "m of record 2 .*is not a list of 2 x 2 finite numbers or an empty list: null"),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_record(path, changes, message):
    path.write_text(json.dumps([row(), row(m=[[1, 2], [3, 4]]), row(**changes), row()]))
    with pytest.raises(BridgeTAError, match=f"not a table of nuScenes v1.0: {message}"):
        read_table(path, FIELDS)


def test_bytes_that_were_read_are_told(path):
    path.write_text(json.dumps([row(n=i) for i in range(5000)]))
    told: list[int] = []
    read_table(path, FIELDS, told.append)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == path.stat().st_size
