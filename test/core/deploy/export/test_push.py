"""Weights are pushed with a card of their own description, and fetched again bit by bit."""

from __future__ import annotations

import pytest
from hub_server import Hub, serve_hub
from small_networks import GRID, trained_student

from bridgeta_core.deploy.export.push import format_card, push_weights
from bridgeta_core.deploy.weights import WeightsInfo, find_weights, save_weights
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import HubPlace

ORIGIN = {"command": "bridgeta train", "unknown_classes": ["divider"], "validation": {"miou": 0.256}}


@pytest.fixture
def hub(tmp_path):
    with serve_hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "student.safetensors"
    save_weights(path, trained_student(), ("a", "b"), ORIGIN)
    return path


def test_what_is_pushed_can_be_fetched(hub: Hub, weights):
    page = push_weights(weights, "hf://me/bev", licence="apache-2.0")
    assert page.startswith(f"{hub.url}/me/bev/commit/")
    assert find_weights("hf://me/bev").read_bytes() == weights.read_bytes()
    card = hub.repositories["models", "me/bev"]["main"]["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert hub.commits[0]["summary"] == "Add student.safetensors"


def test_the_card_says_what_the_file_says_of_itself():
    info = WeightsInfo(trained_student().config, GRID, CLASS_NAMES, ("a", "b"), ORIGIN)
    card = format_card(info, HubPlace("me/bev", "v2"), "student.safetensors")
    assert "# bev\n" in card
    assert "--weights hf://me/bev@v2" in card
    assert "not learned: divider |" in card
    assert "mean IoU 25.6 %" in card
    assert "| date | not said |" in card
    assert "license" not in card


@pytest.mark.parametrize("value", ["a | b\n| c `d`", {"x": "|\n---"}, ["\n# head"], 3])
def test_nothing_in_a_description_breaks_out_of_the_cards_table(value):
    info = WeightsInfo(trained_student().config, GRID, CLASS_NAMES, ("a",), {"command": value, "validation": value})
    rows = format_card(info, HubPlace("me/bev"), "a").split("|---|---|\n")[1].splitlines()
    assert len(rows) == 11
    assert all(row.replace("\\|", "").count("|") == 3 for row in rows)


@pytest.mark.parametrize("place", ["hf://datasets/me/bev", "hf://me/bev/a.safetensors", "me/bev"])
def test_weights_are_pushed_to_a_repository_of_weights_alone(weights, place):
    with pytest.raises(BridgeTAError, match="is no place"):
        push_weights(weights, place)


def test_a_hub_that_refuses_is_one_error(hub: Hub, weights):
    hub.refuses = 401
    with pytest.raises(BridgeTAError, match="hf://me/bev: "):
        push_weights(weights, "hf://me/bev")
