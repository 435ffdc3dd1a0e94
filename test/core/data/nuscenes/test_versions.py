"""What a root says about itself beside its tables."""

from __future__ import annotations

import json

import pytest

from bridgeta_core.data.nuscenes.versions import read_synthetic_settings


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"settings": {"split": "val"}}', b'{"generator": "bridgeta synth", "settings": 3}', b"\xff", b"{}"],
)
def test_a_root_with_a_damaged_data_sheet_is_of_unknown_origin(tmp_path, content):
    (tmp_path / "synth.json").write_bytes(content)
    assert read_synthetic_settings(tmp_path) is None


def test_a_root_of_the_synthetic_world_tells_how_it_was_made(tmp_path):
    assert read_synthetic_settings(tmp_path) is None
    sheet = {"generator": "bridgeta synth", "settings": {"split": "val", "seed": 3}}
    (tmp_path / "synth.json").write_text(json.dumps(sheet))
    assert read_synthetic_settings(tmp_path) == {"split": "val", "seed": 3}
