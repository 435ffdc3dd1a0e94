"""A topic as a data file describes it, and what the readers of data files have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RecordedTopic:
    """A topic as a data file describes it."""

    topic: str
    msgtype: str  # with the middle part: sensor_msgs/msg/Image; empty if the file names none
    encoding: str = "cdr"  # of the messages
    definition_format: str = ""  # ros2msg, ros2idl, ... or empty
    definition: bytes = b""  # as recorded: of a topic nobody asks for it may be anything
    type_hash: str = ""


class DataFile(Protocol):
    """An open data file."""

    topics: list[RecordedTopic]
    counts: Counter[str] | None  # messages by topic as its summary has them; None if it does not say
    start_ns: int  # recording time of the first message; 0 if it does not say

    def messages(self, names: Collection[str]) -> Iterator[tuple[RecordedTopic, int, bytes]]:
        """Yield the serialised messages of some topics with their recording times in nanoseconds."""
        ...

    def close(self) -> None: ...


def complete_type(name: str) -> str:
    """Write a type with its middle part: `sensor_msgs/msg/Image` for the `sensor_msgs/Image` of some writers."""
    package, slash, rest = name.partition("/")
    return f"{package}/msg/{rest}" if slash and "/" not in rest else name
