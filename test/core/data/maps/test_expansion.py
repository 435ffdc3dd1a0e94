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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
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
