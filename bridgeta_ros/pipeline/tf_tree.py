"""The transforms between frames, from the messages of /tf and /tf_static, as tf2 takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgeta_core.geometry.transforms import Matrix, invert, rigid
from bridgeta_core.utils.errors import BridgeTAError

# What tf2 calls a quaternion of unit length (QUATERNION_NORMALIZATION_TOLERANCE in buffer_core.cpp).
_UNIT = 0.01
_LARGEST = 1e12  # metres; products of larger values may overflow
MOST_FRAMES = 10_000  # far above any vehicle's; each costs some 500 bytes
_LONGEST_NAME = 1000


def strip_slash(name: str) -> str:
    """Return a frame's name without leading slashes, which tf (of ROS 1) wrote; some drivers still do."""
    return name.lstrip("/")


@dataclass(frozen=True)
class _Link:
    """The newest transform of a child frame."""

    parent: str
    parent_T_child: Matrix
    stamp_ns: int | None  # None for /tf_static


class TfTree:
    """The newest transform of every link on /tf and /tf_static.

    It ignores what tf2's BufferCore::setTransform ignores: transforms of a frame to itself or without a frame's name,
    values that are not finite, quaternions whose length is not 1, and, when the newest is asked for, what is older than
    that. `find_fault` says what was ignored. Unlike tf2 it takes no more than `MOST_FRAMES` frames, so that names that
    differ in every message do not fill the memory; `overflow` says how many transforms were ignored for that.
    """

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._faults: dict[str, str] = {}  # by child: why its last transform was ignored
        self._selfish: set[str] = set()  # frames that were sent as their own parent, which harms nobody else
        self._surplus = 0  # transforms of frames beyond `MOST_FRAMES`

    @property
    def overflow(self) -> str | None:
        """How many transforms were ignored because there are too many frames, in words; None if none was."""
        if not self._surplus:
            return None
        return f"TF has more than {MOST_FRAMES} frames or endless names, so {self._surplus} transforms were ignored"

    def add(self, parent: str, child: str, parent_T_child: Matrix, stamp_ns: int | None = None) -> None:
        """Set a link; it replaces an earlier parent of the same child. Links without a stamp are static."""
        parent, child = strip_slash(parent), strip_slash(child)
        earlier = self._links.get(child)
        if max(len(parent), len(child)) > _LONGEST_NAME or (earlier is None and len(self._links) >= MOST_FRAMES):
            self._surplus += 1
            return
        if earlier and stamp_ns is not None and earlier.stamp_ns is not None and stamp_ns < earlier.stamp_ns:
            return
        self._links[child] = _Link(parent, parent_T_child, stamp_ns)
        self._faults.pop(child, None)

    def add_message(self, message: Any, *, static: bool = False) -> None:
        """Set the links of a tf2_msgs/TFMessage. Those of /tf_static (`static`) hold whatever their stamps are."""
        for entry in message.transforms:
            t, q = entry.transform.translation, entry.transform.rotation
            position, turn = (t.x, t.y, t.z), (q.w, q.x, q.y, q.z)
            parent, child = strip_slash(entry.header.frame_id), strip_slash(entry.child_frame_id)
            fault = _find_transform_fault(parent, child, position, turn)
            if fault is None:
                stamp = entry.header.stamp
                ns = None if static else stamp.sec * 1_000_000_000 + stamp.nanosec
                self.add(parent, child, rigid(position, turn), ns)
            elif max(len(parent), len(child)) > _LONGEST_NAME or (
                child not in self._faults and len(self._faults) + len(self._selfish) >= MOST_FRAMES
            ):
                self._surplus += 1
            elif parent == child:
                self._selfish.add(child)
            else:
                self._faults[child] = f"TF {parent or '(no name)'} <- {child or '(no name)'} is ignored, {fault}"

    def find_fault(self, target: str, source: str) -> str | None:
        """Say which transform between two frames was last ignored, and why; None if none was.

        What lies above a common ancestor, such as the vehicle's pose on the map, is not between them.
        """
        chains = [self._list_ancestors(strip_slash(frame)) for frame in (source, target)]
        common = set(chains[0]).intersection(chains[1])
        between = [frame for chain in chains for frame in chain if frame not in common]
        return next((self._faults[frame] for frame in between if frame in self._faults), None)

    def _list_ancestors(self, frame: str) -> list[str]:
        """List a frame and its ancestors, up to the root or to where a loop closes."""
        chain = {frame: None}  # a dictionary, as chains may be long
        while (link := self._links.get(frame)) is not None and link.parent not in chain:
            frame = link.parent
            chain[frame] = None
        return list(chain)

    def _to_root(self, frame: str) -> dict[str, Matrix]:
        """Return every ancestor of a frame (itself first, the root last) with ancestor_T_frame."""
        chain = {frame: np.eye(4)}
        while frame in self._links:
            link = self._links[frame]
            if link.parent in chain:
                raise BridgeTAError(f"TF has a loop through {link.parent}", fix="Each frame needs one parent")
            chain[link.parent] = link.parent_T_child @ chain[frame]
            frame = link.parent
        return chain

    def connects(self, target: str, source: str) -> bool:
        """Return whether `lookup` would find a chain."""
        try:
            return not self._to_root(strip_slash(source)).keys().isdisjoint(self._to_root(strip_slash(target)))
        except BridgeTAError:  # a loop
            return False

    def lookup(self, target: str, source: str) -> Matrix:
        """Return target_T_source. Raises BridgeTAError that names the frames between which a link is missing."""
        target, source = strip_slash(target), strip_slash(source)
        up_source, up_target = self._to_root(source), self._to_root(target)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            known = set(self._links) | {link.parent for link in self._links.values()}
            absent = [frame for frame in (target, source) if frame not in known]
            why = (
                f"TF does not know {' nor '.join(absent)}"
                if absent
                else f"{source} hangs on {list(up_source)[-1]}, {target} on {list(up_target)[-1]}"
            )
            fault = self.find_fault(target, source) or self._faults.get("")
            if fault is None and not self._selfish.isdisjoint((target, source)):
                names = ", ".join(sorted(self._selfish.intersection((target, source))))
                fault = f"TF sends {names} as its own parent, which is ignored"
            fault = fault or self.overflow
            raise BridgeTAError(
                f"no transform {target} <- {source}: {why}" + (f"; {fault}" if fault else ""),
                fix="Publish the missing link on /tf_static, or give the calibration as a file (docs/rig.md)",
            )
        return invert(up_target[common]) @ up_source[common]


def _find_transform_fault(parent: str, child: str, position: Sequence[float], turn: Sequence[float]) -> str | None:
    if parent == child:
        return "a frame is its own parent"
    if not parent or not child:
        return "a frame has no name"
    if not all(map(math.isfinite, (*position, *turn))):
        return "it holds values that are not finite"
    if max(map(abs, (*position, *turn))) > _LARGEST:
        return "it holds values that are no measures"
    length = math.hypot(*turn)
    if abs(length**2 - 1) >= _UNIT:
        return f"its quaternion has length {length:.3g}, not 1"
    return None
