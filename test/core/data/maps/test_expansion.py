from __future__ import annotations

import json

import pytest

from bridgeta_core.data.maps.expansion import load_layers
from bridgeta_core.utils.errors import BridgeTAError

CITY = "singapore-onenorth"


def _absent(path):
    path.unlink()


def _truncated(path):
    path.write_bytes(path.read_bytes()[:2000])


def _old(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "1.2"}))


def _unversioned(path):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "version"}))


def _dangling(path):
    path.write_text(path.read_text().replace('"token": "n5"', '"token": "lost"'))


def _nested(path):
    path.write_text('{"version": "1.3", "node": ' + "[" * 100_000)


def _superscript(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "²"}))


def _endless_version(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "1." + "0" * 5000}))


def _change_node(path, **values):
    content = json.loads(path.read_text())
    content["node"][5] |= values
    path.write_text(json.dumps(content))


def _endless_number(path):
    _change_node(path, x=10**400)


def _infinite(path):
    _change_node(path, y=float("inf"))


def _far_off(path):
    _change_node(path, x=1e7)


def _scaled(path):
    content = json.loads(path.read_text())
    for node in content["node"]:
        node |= {"x": node["x"] * 1e9, "y": node["y"] * 1e9}
    path.write_text(json.dumps(content))


def _list_of_nothing(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"polygon": [None]}))


def _text_for_records(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"drivable_area": "no"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nested, "is not JSON.*nested too deeply"),
        (_superscript, "is map expansion v², v1.3"),
        (_endless_version, r"is map expansion v1\.0+, v1.3"),
        (_endless_number, "is not a map expansion v1.3 .*OverflowError"),
        (_infinite, "is not a map expansion v1.3 .*not finite"),
        (_far_off, "is not a map expansion v1.3 .*node n5 lies 10,000 km from the others"),
        (_scaled, "is not a map expansion v1.3 .*km from the others"),
        (_list_of_nothing, "is not a map expansion v1.3"),
        (_text_for_records, "is not a map expansion v1.3"),
        (_absent, "the map expansion is missing"),
        (_truncated, "is not JSON, perhaps truncated"),
        (_old, "is map expansion v1.2, v1.3 is needed"),
        (_unversioned, "is map expansion v1.0, v1.3 is needed"),
        (_dangling, "is not a map expansion v1.3 .*n5"),
    ],
)
def test_a_bad_map_is_named_with_where_to_get_a_good_one(broken_root, damage, message):
    path = broken_root / "maps" / "expansion" / f"{CITY}.json"
    damage(path)
    with pytest.raises(BridgeTAError, match=rf"{CITY}.json: {message}.*Download the map expansion v1.3.*into maps/"):
        load_layers(broken_root, CITY)
