"""A live node, a vehicle that publishes to it, and a listener; skipped without a sourced ROS 2."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# A graph of our own, on this machine only: tests neither see nor disturb a vehicle's.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOCALHOST_ONLY"] = "1"  # Humble's way to say the same


def _missing() -> str | None:
    if importlib.util.find_spec("rclpy") is None:
        return "there is no ROS 2 here; source /opt/ros/DISTRO/setup.bash, then make test-ros"
    if "PYTEST_XDIST_WORKER" in os.environ:
        return "they do not run beside others; make test-ros runs them"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _missing()
    for item in items:
        if reason is not None and HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """Provide a context for the whole session."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Provide nodes under test with a network that can be computed by hand, and what talks to them."""
    from ros_bench import Bench

    with Bench(monkeypatch) as made:
        yield made


@pytest.fixture
def start(bench: Any) -> Callable[..., Any]:
    """Start a node with parameters and activate it."""
    return bench.start
