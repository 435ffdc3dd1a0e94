"""The cycles that a synchroniser leaves over, because a camera is missing from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.sync import ImageSet

T = TypeVar("T")


class CycleWatch(Generic[T]):
    """Beside a synchroniser that hands out complete sets: counts the cycles that stay incomplete, hands those out
    that have at least `minimum` cameras, and notices that time went back.

    For each message call `add`, then give it to the synchroniser, tell `used` of a set that came out, and ask `due`.
    A cycle is the images within `slop_ns` of its first one. It is over when each camera that it lacks has sent a later
    image, or when any image is later by another `slop_ns`: messages of different cameras do not arrive in the order of
    their stamps. When each camera that sends at all has sent, it is due at once. A camera that has been silent for
    `silent_ns` of the other cameras' stamps is not waited for. All times are stamps in nanoseconds, so that speed of
    playback does not matter.
    """

    def __init__(
        self,
        names: Sequence[str],
        slop_ns: int,
        minimum: int,
        *,
        reset_ns: int = 1_000_000_000,
        silent_ns: int = 1_000_000_000,
    ) -> None:
        if not names or not 1 <= minimum <= len(names):
            raise BridgeTAError(f"sets of at least {minimum} of the cameras {list(names)} cannot be made", exit_code=2)
        self.incomplete = 0  # cycles that were over without all cameras, whether handed out or not
        self._names, self._slop, self._minimum = tuple(names), slop_ns, minimum
        self._reset, self._silent = reset_ns, silent_ns
        self._waiting: dict[str, dict[int, T]] = {name: {} for name in names}
        self._latest: dict[str, int] = {}
        self._first = 0

    def add(self, name: str, stamp_ns: int, item: T) -> bool:
        """Take an item; whether its stamp went back by more than `reset_ns`, so that all older ones were forgotten."""
        went_back = stamp_ns < self._latest.get(name, stamp_ns) - self._reset
        if went_back:
            self.reset()
        if not self._latest:
            self._first = stamp_ns
        self._latest[name] = max(stamp_ns, self._latest.get(name, stamp_ns))
        self._waiting[name][stamp_ns] = item
        return went_back

    def used(self, stamps: Mapping[str, int]) -> None:
        """A set of these stamps was handed out by the synchroniser."""
        for name, stamp in stamps.items():
            self._waiting[name].pop(stamp, None)

    def due(self) -> ImageSet[T] | None:
        """The newest incomplete set that nothing more is to be expected for, if it has enough cameras."""
        result = None
        while any(self._waiting.values()):
            start = min(min(items) for items in self._waiting.values() if items)
            stamps = {
                name: min(items) for name, items in self._waiting.items() if items and min(items) <= start + self._slop
            }
            enough = len(stamps) >= self._minimum
            awaited = self._expected() - stamps.keys()
            at_once = enough and len(stamps) < len(self._names) and not awaited
            if not at_once and not self._over(start + self._slop, awaited):
                break
            self.incomplete += 1
            cycle = {name: self._waiting[name].pop(stamp) for name, stamp in stamps.items()}
            if enough:
                result = ImageSet(cycle, stamps)
        return result

    def _over(self, end: int, awaited: set[str]) -> bool:
        """Whether a cycle that ends at this stamp can get no more images."""
        newest = max(self._latest.values())
        return newest > end + self._slop or (newest > end and all(self._latest.get(n, end) > end for n in awaited))

    def _expected(self) -> set[str]:
        """The cameras that are worth waiting for."""
        newest = max(self._latest.values())
        return {n for n in self._names if self._latest.get(n, self._first) >= newest - self._silent}

    def reset(self) -> None:
        """Forget all stamps, as after a jump of the clock; the count stays."""
        for items in self._waiting.values():
            items.clear()
        self._latest.clear()
