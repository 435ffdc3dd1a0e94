"""The tables of docs/ros2.md against what a live node has on the graph."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from doc_tables import read_table

ROOT = Path(__file__).resolve().parents[4]
CAMERAS = ("cam_front", "cam_back")
CLASSES = ("drivable_area", "ped_crossing", "walkway", "stop_line", "carpark_area", "divider")
STAGES = ("transport", "wait", "decode", "preprocess", "network", "encode", "publish", "total")
OF_EVERY_NODE = {"/rosout", "/parameter_events", "/bev_node/transition_event"}


def documented(head: str) -> dict[str, str]:
    """Return full topic or service names with their types."""
    found = {}
    for row in read_table(head):
        name, kind = row[0].strip("`"), row[1]
        for camera in CAMERAS if "<camera>" in name else ("",):
            for cls in CLASSES if "<class>" in name else ("",):
                for stage in STAGES if "<stage>" in name else ("",):
                    full = name.replace("<camera>", camera).replace("<class>", cls).replace("<stage>", stage)
                    full = full.replace("~", "/bev_node")
                    found[full if full.startswith("/") else f"/{full}"] = kind
    return found


def on_graph(pairs: list[tuple[str, list[str]]]) -> dict[str, str]:
    return {name: kinds[0].replace("/msg/", "/").replace("/srv/", "/") for name, kinds in pairs}


def test_topics_and_services_are_those_of_a_live_node(bench: Any) -> None:
    bench.start(local_map__enabled=True)
    published = documented("Published")
    node = bench.node
    bench.until(
        lambda: published.keys() <= on_graph(node.get_publisher_names_and_types_by_node("bev_node", "/")).keys()
    )
    publishers = on_graph(node.get_publisher_names_and_types_by_node("bev_node", "/"))
    assert {k: v for k, v in publishers.items() if k not in OF_EVERY_NODE} == published
    subscribers = on_graph(node.get_subscriber_names_and_types_by_node("bev_node", "/"))
    raw = {f"/bev_node/input/{camera}/image" for camera in CAMERAS}
    expected = {k: v for k, v in documented("Subscribed").items() if k not in raw}
    assert {k: v for k, v in subscribers.items() if k not in OF_EVERY_NODE} == expected
    services = on_graph(node.get_service_names_and_types_by_node("bev_node", "/"))
    assert {k: v for k, v in services.items() if v == "std_srvs/Trigger"} == documented("Service")


def test_the_security_policy_allows_what_a_live_node_does(bench: Any) -> None:
    bench.start(local_map__enabled=True)
    node, policy = bench.node, ElementTree.parse(ROOT / "config" / "sros2_policy.xml")

    def allowed(group: str, kind: str) -> list[str]:
        return [str(e.text) for found in policy.iter(group) if found.get(kind) == "ALLOW" for e in found]

    def unmatched(names: Iterable[str], patterns: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]

    published = dict(node.get_publisher_names_and_types_by_node("bev_node", "/"))
    subscribed = dict(node.get_subscriber_names_and_types_by_node("bev_node", "/"))
    services = dict(node.get_service_names_and_types_by_node("bev_node", "/"))
    assert "/bev/image" in published
    assert unmatched(published, allowed("topics", "publish")) == []
    assert unmatched(subscribed, allowed("topics", "subscribe")) == []
    assert unmatched(services, allowed("services", "reply")) == []


def test_the_statuses_are_those_of_a_live_node(bench: Any) -> None:
    bench.start(local_map__enabled=True)
    documented_names = {row[0].strip("`") for row in read_table("Status")}

    def names() -> set[str]:
        return {name.removeprefix("/bev_node: ") for name in bench.listener.statuses}

    bench.until(lambda: documented_names <= names())
    assert names() == documented_names
