"""Stamps of several cameras on one clock: jumps that all of them make, and cameras that are on a clock of their own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_DEPTH = 10  # images that are held back of each camera, and after which a jump is believed without another camera
_RECENT = 3  # cycles within which a camera that sends has sent


class Stamped(NamedTuple, Generic[T]):
    """An image with its camera and stamp in nanoseconds."""

    name: str
    stamp_ns: int
    item: T


class CommonClock(Generic[T]):
    """Passes on the images whose stamps are of the cameras' common clock.

    An image is off that clock if its stamp is more than `limit_ns` ahead of all cameras, or behind its own camera's
    newest, or, as the first of its camera, behind all. Time itself may have jumped: a bag starts over, a clock is set,
    all cameras pause. Or a camera has lost its clock, and its stamps must not cost the others their sets. So the image
    is held back until more cameras stand there (two at least) than at the newest time of the common clock, of those
    that have sent lately, or until some more images have come and none on the common clock. Then all that is held is
    passed on. The same vote takes the clock back to cameras that it left behind, whoever it was that it had followed.

    `astray` counts the images by camera that were given up.
    """

    def __init__(self, names: Sequence[str], limit_ns: int) -> None:
        self.astray: Counter[str] = Counter()
        self._limit, self._alone, self._cameras = limit_ns, len(names) == 1, len(names)
        self._latest: dict[str, int] = {}  # newest stamp of each camera on the common clock
        self._held: dict[str, deque[Stamped[T]]] = {}
        self._last: dict[str, tuple[int, int]] = {}  # number and stamp of the last image of each camera
        self._count = 0  # images so far
        self._since = 0  # images that were held since the last one on the common clock

    def add(self, image: Stamped[T]) -> tuple[list[Stamped[T]], bool]:
        """Take an image; return those to use now, in the order of their stamps, and whether time has gone back."""
        name, stamp, _ = image
        self._count += 1
        self._last[name] = (self._count, stamp)
        if self._is_common(name, stamp):
            self._give_up(name)
            self._since = 0
            self._latest[name] = max(stamp, self._latest.get(name, stamp))
            if self._is_near(stamp, self._newest) or not self._outvotes(stamp):
                return [image], False
            others, _ = self._jump(stamp)
            return sorted([*others, image], key=lambda image: image.stamp_ns), True
        held = self._held.setdefault(name, deque())
        if held and (abs(stamp - held[-1].stamp_ns) > self._limit or len(held) == _DEPTH):
            lost = len(held) if len(held) < _DEPTH else 1
            self.astray[name] += lost
            for _ in range(lost):
                held.popleft()
        held.append(image)
        self._since += 1
        believed = self._outvotes(stamp) or self._alone or self._since >= _DEPTH
        return self._jump(stamp) if believed else ([], False)

    def flush(self) -> None:
        """Give up the images that are held back."""
        for name in list(self._held):
            self._give_up(name)

    def _is_common(self, name: str, stamp: int) -> bool:
        if not self._latest:
            return True
        newest = self._newest
        return self._latest.get(name, newest) - self._limit <= stamp <= newest + self._limit

    @property
    def _newest(self) -> int:
        return max(self._latest.values())

    def _find_cameras(self, stamp: int) -> set[str]:
        """Find the cameras that have sent lately and stand at this time."""
        since = self._count - _RECENT * self._cameras
        return {name for name, (number, last) in self._last.items() if number > since and self._is_near(last, stamp)}

    def _outvotes(self, stamp: int) -> bool:
        """Return whether more cameras stand at this time than at the newest of the common clock."""
        group = self._find_cameras(stamp)
        return len(group) >= 2 and len(group) > len(self._find_cameras(self._newest) - group)

    def _is_near(self, one: int, other: int) -> bool:
        return abs(one - other) <= self._limit

    def _give_up(self, name: str) -> None:
        self.astray[name] += len(self._held.pop(name, ()))

    def _jump(self, stamp: int) -> tuple[list[Stamped[T]], bool]:
        """Take this time, at which some cameras stand, for that of the common clock."""
        went_back, group = stamp < self._newest, self._find_cameras(stamp)
        held = [i for n in list(self._held) if n in group for i in self._held.pop(n)]
        images = sorted(held, key=lambda image: image.stamp_ns)
        if went_back:
            self._latest.clear()
        for name in group:
            _, last = self._last[name]
            self._latest[name] = max(last, self._latest.get(name, last))
        self._since = 0
        return images, went_back
