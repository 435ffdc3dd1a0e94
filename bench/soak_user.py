"""The user of the soak test: it subscribes to everything that the node publishes."""

from __future__ import annotations

from collections import defaultdict

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node
from rosidl_runtime_py.utilities import get_message
from soak_vehicle import LATCHED
from std_msgs.msg import Float64

from bridgeta_ros.pipeline import messages, topics


class User:
    """Subscribes to everything that the node publishes."""

    def __init__(self, node: Node) -> None:
        self.grids: dict[str, int] = defaultdict(int)
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.values: dict[str, dict[str, str]] = {}
        self.levels: dict[str, set[str]] = defaultdict(set)
        self._node, self._subscriptions = node, []
        self.subscribe(True)
        for stage in topics.LATENCIES:
            append = self.latencies[stage].append
            node.create_subscription(
                Float64, f"/bev_node/latency/{stage}", lambda m, append=append: append(m.data), 100
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics, 10)

    def subscribe(self, wanted: bool) -> None:
        """Subscribe to the grids and one grid of the local map, or to none of them."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if not wanted:
            return
        for topic, kind in messages.list_output_topics().items():
            self._subscriptions.append(
                self._node.create_subscription(
                    get_message(kind), topic, lambda _, t=topic: self._grid(t), LATCHED, raw=True
                )
            )
        topic = f"{topics.LOCAL_MAP}/drivable_area"
        self._subscriptions.append(self._node.create_subscription(OccupancyGrid, topic, lambda _: None, LATCHED))

    def _grid(self, topic: str) -> None:
        self.grids[topic] += 1

    @property
    def least(self) -> int:
        """How many grids have come, on the topic with the fewest."""
        return min(self.grids[topic] for topic in messages.list_output_topics())

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.rpartition(": ")[2]
            self.values[name] = {v.key: v.value for v in status.values}
            if status.level != b"\0":
                self.levels[name].add(status.message)

    def clear(self) -> None:
        """Forget what came so far."""
        for column in self.latencies.values():
            column.clear()
        self.grids.clear()
        self.levels.clear()
