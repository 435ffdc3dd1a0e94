"""docs/ros2.md against the code. test/ros compares it with a live node."""

from __future__ import annotations

from typing import Any

from doc_tables import PAGE, read_table

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_ros.node.health import SetCounts
from bridgeta_ros.node.parameters import list_parameters
from bridgeta_ros.pipeline import messages, topics


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ("", [""]) else str(value)


def test_the_parameters_are_those_of_the_code():
    expected = [[f"`{p.name}`", shown(p.default), p.constraints, p.effect, p.help] for p in list_parameters()]
    assert read_table("Parameter") == expected


def test_the_published_topics_are_those_of_the_code():
    documented = {row[0].strip("`"): row[1].replace("/", "/msg/") for row in read_table("Published")}
    grids = {f"{topics.BEV}/{name}".lstrip("/") for name in CLASS_NAMES}
    outputs = {topic.lstrip("/"): kind for topic, kind in messages.list_output_topics().items()}
    assert grids < outputs.keys()
    expected = {topic: kind for topic, kind in outputs.items() if topic not in grids}
    expected |= {
        "bev/<class>": topics.OCCUPANCY_GRID,
        f"{topics.LOCAL_MAP}/<class>".lstrip("/"): topics.OCCUPANCY_GRID,
        "~/latency/<stage>": topics.FLOAT64,
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }
    assert documented == expected


def test_every_class_stage_and_count_is_named():
    page = " ".join(PAGE.split())
    assert f"each of {', '.join(CLASS_NAMES)}." in page
    for word in (*topics.LATENCIES, *SetCounts.__dataclass_fields__):
        assert f"{word} (" in page or f"{word}," in page, word
