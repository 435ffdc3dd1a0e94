"""The few transforms that matter, picked out of a busy /tf without decoding the others. No ROS."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.tf_tree import MOST_FRAMES

_LONGEST_WAY = 1000  # links, of all frames together
_HEADER = 4  # bytes of the encapsulation, from whose end CDR aligns


@dataclass(frozen=True)
class Link:
    """One transform of a tf2_msgs/TFMessage: metres, and the quaternion (x, y, z, w) as it was sent."""

    stamp: tuple[int, int]  # seconds and nanoseconds
    parent: str
    child: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


class TransformReader:
    """Reads, of serialised TFMessages, the links on the way from some frames up to their roots.

    A vehicle with an arm or a trailer sends thousands of transforms a second, and in Python to decode one costs some
    thirty times as much as to pass over it. A link is on the way if its child is one of `frames`, or the parent of a
    link that was: a chain of n links is known once each has been sent n times at most. Where parents that change all
    the time make the way endless, it is forgotten and found again; of `MOST_FRAMES` static links it knows no more.
    """

    def __init__(self, frames: Iterable[str]) -> None:
        self._frames: tuple[str, ...] = ()
        self._wanted: set[bytes] = set()
        self._above: dict[bytes, bytes] = {}  # parents of static links, which do not come again
        self.watch(frames)

    def watch(self, frames: Iterable[str]) -> None:
        """Read the links above these frames, and no longer those above the earlier ones."""
        self._frames = tuple(frames)
        self._wanted.clear()
        for frame in self._frames:
            self._want(frame.encode())

    def add_static(self, parent: str, child: str) -> bool:
        """Note a link of /tf_static: the way may lead over it. Return False if there are too many to know another."""
        name = child.lstrip("/").encode()
        if name not in self._above and len(self._above) >= MOST_FRAMES:
            return False
        self._above[name] = parent.encode()
        if name in self._wanted:
            self._want(parent.encode())
        return True

    def _want(self, frame: bytes) -> None:
        frame = frame.lstrip(b"/")
        while frame and frame not in self._wanted:
            self._wanted.add(frame)
            frame = self._above.get(frame, b"").lstrip(b"/")

    def read(self, data: bytes) -> list[Link]:
        """Return the links of a message that are on the way. Raises BridgeTAError for bytes that are no TFMessage."""
        if not any(frame in data for frame in self._wanted):
            return []
        links = []
        try:
            for stamp, parent, child, numbers in _walk(data):
                if child.lstrip(b"/") in self._wanted:
                    if len(self._wanted) >= _LONGEST_WAY:
                        self.watch(self._frames)
                    self._want(parent)
                    values = struct.unpack_from(f"{_order(data)}7d", data, numbers)
                    links.append(Link(stamp, parent.decode(), child.decode(), values[:3], values[3:]))
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise BridgeTAError(f"a message on /tf is no TFMessage ({error})") from error
        return links


def _order(data: bytes) -> str:
    return "<" if data[1] & 1 else ">"


def _align(offset: int, size: int) -> int:
    """Return where the next value of `size` bytes begins (CDR, OMG DDS-XTypes 7.4.1)."""
    return _HEADER + (offset - _HEADER + size - 1) // size * size


def _walk(data: bytes) -> Iterator[tuple[tuple[int, int], bytes, bytes, int]]:
    """Yield of each transform its stamp, parent and child frame, and the offset of its seven numbers."""
    order = _order(data)
    length, stamp_and_length = struct.Struct(f"{order}I"), struct.Struct(f"{order}iII")
    (count,) = length.unpack_from(data, _HEADER)
    offset = _HEADER + 4
    for _ in range(count):
        seconds, nanoseconds, size = stamp_and_length.unpack_from(data, _align(offset, 4))
        offset = _align(offset, 4) + 12
        parent = data[offset : offset + size - 1]  # without the zero at its end
        offset = _align(offset + size, 4)
        (size,) = length.unpack_from(data, offset)
        child = data[offset + 4 : offset + 3 + size]
        numbers = _align(offset + 4 + size, 8)
        if numbers + 56 > len(data):
            raise struct.error(f"{len(data)} bytes are too few for {count} transforms")
        yield (seconds, nanoseconds), parent, child, numbers
        offset = numbers + 56
