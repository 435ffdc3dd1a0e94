"""Stamps of several cameras on one clock: jumps that all of them make, and cameras that are on a clock of their own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_DEPTH = 10  # images that are held back of each camera, and after which a jump is believed without another camera


class Stamped(NamedTuple, Generic[T]):
    """An image with its camera and stamp in nanoseconds."""

    name: str
    stamp_ns: int
    item: T


class CommonClock(Generic[T]):
    """Passes on the images whose stamps are of the cameras' common clock.

    An image is off that clock if its stamp is more than `limit_ns` ahead of all cameras, or behind its own camera's
    newest, or, as the first of its camera, behind all. Time itself may have jumped: a bag starts over, a clock is set,
    all cameras pause. Or one camera has lost its clock, and its stamps must not cost the others their sets. So the
    image is held back until more cameras stand there than have sent on the common clock meanwhile (two at least), or
    until some more images have come and none on the common clock. Then all that is held is passed on.

    `astray` counts the images by camera that were given up.
    """

    def __init__(self, names: Sequence[str], limit_ns: int) -> None:
        self.astray: Counter[str] = Counter()
        self._limit, self._alone = limit_ns, len(names) == 1
        self._latest: dict[str, int] = {}  # newest stamp of each camera on the common clock
        self._held: dict[str, deque[Stamped[T]]] = {}
        self._heard: set[str] = set()  # cameras on the common clock since something is held
        self._since = 0  # images that were held since the last one on the common clock

    def add(self, image: Stamped[T]) -> tuple[list[Stamped[T]], bool]:
        """Take an image; return those to use now, in the order of their stamps, and whether time has gone back."""
        name, stamp, _ = image
        if self._is_common(name, stamp):
            self._give_up(name)
            self._heard = self._heard | {name} if self._held else set()
            self._since = 0
            self._latest[name] = max(stamp, self._latest.get(name, stamp))
            return [image], False
        held = self._held.setdefault(name, deque())
        if held and (abs(stamp - held[-1].stamp_ns) > self._limit or len(held) == _DEPTH):
            lost = len(held) if len(held) < _DEPTH else 1
            self.astray[name] += lost
            for _ in range(lost):
                held.popleft()
        held.append(image)
        self._heard.discard(name)
        self._since += 1
        group = [n for n, images in self._held.items() if images and self._is_near(images[-1].stamp_ns, stamp)]
        many = len(group) >= 2 and len(group) > len(self._heard)
        return self._jump(group, stamp) if many or self._alone or self._since >= _DEPTH else ([], False)

    def flush(self) -> None:
        """Give up the images that are held back."""
        for name in list(self._held):
            self._give_up(name)

    def _is_common(self, name: str, stamp: int) -> bool:
        if not self._latest:
            return True
        newest = max(self._latest.values())
        return self._latest.get(name, newest) - self._limit <= stamp <= newest + self._limit

    def _is_near(self, one: int, other: int) -> bool:
        return abs(one - other) <= self._limit

    def _give_up(self, name: str) -> None:
        self.astray[name] += len(self._held.pop(name, ()))

    def _jump(self, group: Sequence[str], stamp: int) -> tuple[list[Stamped[T]], bool]:
        """Take the stamps of a group of cameras for the common clock."""
        went_back = stamp < max(self._latest.values())
        images = sorted((i for n in group for i in self._held.pop(n)), key=lambda image: image.stamp_ns)
        if went_back:
            self._latest.clear()
        for name, newest, _ in images:
            self._latest[name] = max(newest, self._latest.get(name, newest))
        self._heard, self._since = set(), 0
        return images, went_back
