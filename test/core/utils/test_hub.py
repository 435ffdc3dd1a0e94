"""Weights and datasets of a hub, against one on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import Hub, hash_files, serve_hub
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import HubPlace, fetch_file, fetch_folder, find_root, is_hub_place, parse_hub_place

names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,8}", fullmatch=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    with serve_hub(tmp_path / "hub") as server:
        yield server


@given(
    names, names, st.none() | names, st.none() | st.lists(names, min_size=1, max_size=3), st.booleans(), st.booleans()
)
def test_a_place_is_read_as_it_is_written(owner, name, revision, path, is_dataset, through_a_path):
    text = f"hf://{'datasets/' * is_dataset}{owner}/{name}"
    text += f"@{revision}" if revision else ""
    text += "/" + "/".join(path) if path else ""
    found = parse_hub_place(Path(text) if through_a_path else text)
    assert found == HubPlace(f"{owner}/{name}", revision, "/".join(path) if path else None, is_dataset)
    assert is_hub_place(Path(text))
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://owner", "hf:owner/name", "hf://owner/name@", "hf://a/b/../../c", "hf://../b", "hf://a/b@c@d"],
)
def test_what_is_no_place_says_how_one_is_written(text):
    with pytest.raises(BridgeTAError, match=r"is no place in a hub.*hf://owner/name"):
        parse_hub_place(text)


def test_the_only_file_is_fetched_once(hub: Hub):
    hub.add("me/bev", {"a.safetensors": b"weights", "README.md": b"card"})
    first = fetch_file("hf://me/bev", ".safetensors")
    assert first.read_bytes() == b"weights"
    assert not (first.parent / "README.md").exists()
    hub.requests.clear()
    assert fetch_file("hf://me/bev", ".safetensors") == first
    assert not [request for request in hub.requests if "resolve" in request]


def test_a_revision_or_a_path_names_another_file(hub: Hub):
    hub.add("me/bev", {"a.safetensors": b"new", "more/b.safetensors": b"other"})
    hub.add("me/bev", {"a.safetensors": b"old"}, revision="v1")
    commit = hash_files({"a.safetensors": b"old"})
    contents = {
        "": b"new",
        "@v1": b"old",
        f"@{commit}": b"old",
        "/more/b.safetensors": b"other",
        "@main/a.safetensors": b"new",
    }
    for end, content in contents.items():
        assert fetch_file(f"hf://me/bev{end}", ".safetensors").read_bytes() == content


def test_a_dataset_is_fetched_as_a_folder(hub: Hub, tmp_path):
    files = {"town/maps/a.json": b"{}", "town/samples/b.jpg": b"jpeg", "other/c": b"c"}
    hub.add("me/towns", files, kind="datasets")
    root = find_root("hf://datasets/me/towns/town")
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "maps/a.json",
        "samples/b.jpg",
    }
    assert (fetch_folder("hf://datasets/me/towns") / "other" / "c").read_bytes() == b"c"
    assert find_root(tmp_path / "x" / ".." / "y") == tmp_path / "y"


def test_several_files_are_listed(hub: Hub):
    hub.add("me/bev", {"a.safetensors": b"a", "b.safetensors": b"b"})
    with pytest.raises(BridgeTAError, match=r"has a\.safetensors, b\.safetensors.*hf://me/bev/a\.safetensors"):
        fetch_file("hf://me/bev", ".safetensors")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://me/nothing", "hf://me/nothing: no such repository"),
        ("hf://me/bev@v9", "hf://me/bev@v9: no such revision"),
        ("hf://me/bev/c.safetensors", "has no such file"),
        ("hf://me/empty", "has no such file"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, place, message):
    hub.add("me/bev", {"a.safetensors": b"a"})
    hub.add("me/empty", {"README.md": b"card"})
    with pytest.raises(BridgeTAError, match=message):
        fetch_file(place, ".safetensors")


def test_without_a_connection_the_cache_is_used(hub: Hub, monkeypatch):
    import huggingface_hub

    hub.add("me/bev", {"a.safetensors": b"a"})
    before = fetch_file("hf://me/bev", ".safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_file("hf://me/bev", ".safetensors") == before
    with pytest.raises(BridgeTAError, match="hf://me/other: is not in the cache, and the hub cannot be asked"):
        fetch_file("hf://me/other", ".safetensors")


def test_a_file_that_was_damaged_in_the_cache_is_named(hub: Hub):
    hub.add("me/bev", {"a.safetensors": b"weights"})
    path = fetch_file("hf://me/bev", ".safetensors")
    path.resolve().write_bytes(b"weightz")
    with pytest.raises(BridgeTAError, match=r"differs from its checksum.*Remove"):
        fetch_file("hf://me/bev", ".safetensors")


def test_a_hub_that_refuses_is_one_error(hub: Hub):
    hub.refuses = 500
    with pytest.raises(BridgeTAError, match="hf://me/bev: "):
        fetch_file("hf://me/bev", ".safetensors")
