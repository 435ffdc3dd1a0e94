"""Sets of images of one moment, one of each camera, from streams with their own stamps."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.stamps import CommonClock, Stamped

T = TypeVar("T")

DEFAULT_SLOP = 0.06  # s; a nuScenes cycle spreads over 42.6 ms, and 73 ms is the least that mixes two of them
_SECOND = 1_000_000_000  # ns
_MOST_WAITING = 500  # images of a camera that wait, though their stamps may creep by nanoseconds


@dataclass(frozen=True)
class ImageSet(Generic[T]):
    """The images of one moment by camera, with their stamps in nanoseconds."""

    items: Mapping[str, T]
    stamps: Mapping[str, int]

    @property
    def newest_ns(self) -> int:
        """The stamp of the set: that of its newest image."""
        return max(self.stamps.values())

    @property
    def spread_ns(self) -> int:
        """Time between the oldest and the newest image."""
        return self.newest_ns - min(self.stamps.values())


class Matcher(Protocol[T]):
    """Finds complete sets."""

    def add(self, name: str, stamp_ns: int, item: T) -> ImageSet[T] | None:
        """Take an image of a camera; return the set that it completes."""
        ...

    def clear(self) -> None:
        """Forget all images."""
        ...


@dataclass(order=True)
class _Entry(Generic[T]):
    stamp_ns: int
    item: T = field(compare=False)


class ApproximateTimeMatcher(Generic[T]):
    """Finds complete sets without ROS: the newest images whose stamps lie within `slop_ns` of each other.

    A set comes out with the image that completes it. No image is used twice. Images may come out of order. A camera
    that falls silent costs `depth` images of memory per other camera.
    """

    def __init__(self, names: Sequence[str], slop_ns: int, depth: int = 10) -> None:
        self._slop, self._depth = slop_ns, depth
        self._queues: dict[str, list[_Entry[T]]] = {name: [] for name in names}
        self._used: dict[str, int] = {}  # newest stamp of each camera that left its queue

    def add(self, name: str, stamp_ns: int, item: T) -> ImageSet[T] | None:
        """Take an image; return the set that it completes. Ignore duplicates, and what is older than a used one."""
        queue = self._queues[name]
        entry = _Entry(stamp_ns, item)
        if stamp_ns <= self._used.get(name, stamp_ns - 1) or entry in queue:
            return None
        insort(queue, entry)
        images = self._match()
        self._drop(name, len(queue) - self._depth)
        return images

    def clear(self) -> None:
        """Forget all images."""
        for queue in self._queues.values():
            queue.clear()
        self._used.clear()

    def _match(self) -> ImageSet[T] | None:
        queues = self._queues
        while all(queues.values()):
            # Whatever is older than this cannot be in a set: one camera has nothing as old any more.
            pivot = max(queue[0].stamp_ns for queue in queues.values())
            stale = {name: _count_until(queue, pivot - self._slop - 1) for name, queue in queues.items()}
            if any(stale.values()):
                for name, count in stale.items():
                    self._drop(name, count)
                continue
            for name, queue in queues.items():
                self._drop(name, _count_until(queue, pivot) - 1)
            chosen = {name: queue[0] for name, queue in queues.items()}
            for name in queues:
                self._drop(name, 1)
            return ImageSet(
                {name: entry.item for name, entry in chosen.items()},
                {name: entry.stamp_ns for name, entry in chosen.items()},
            )
        return None

    def _drop(self, name: str, count: int) -> None:
        """Remove the oldest `count` images of a camera; none if the count is not positive."""
        if count > 0:
            queue = self._queues[name]
            self._used[name] = queue[count - 1].stamp_ns
            del queue[:count]


def _count_until(queue: Sequence[_Entry[T]], stamp_ns: int) -> int:
    return bisect_right(queue, stamp_ns, key=lambda entry: entry.stamp_ns)


@dataclass
class SyncCounts:
    """What became of the images."""

    complete: int = 0  # sets with all cameras
    incomplete: int = 0  # cycles that were over without all cameras, whether handed out or not
    late: int = 0  # images as old as a used one of their camera, duplicates among them
    resets: int = 0  # times that stamps went back
    astray: int = 0  # images whose stamps are of another clock than the other cameras'
    # By camera, the incomplete cycles that lacked it and had at least half of the cameras that send: stray images, such
    # as those of a camera that is always late, blame nobody.
    missed: dict[str, int] = field(default_factory=dict)


class Synchroniser(Generic[T]):
    """Sorts the images of several cameras into sets, and counts the cycles that lack cameras.

    `matcher` finds the complete sets; without one, an `ApproximateTimeMatcher` does. Of the cycles that it leaves
    over, those with at least `minimum` cameras are sets as well; None wants complete sets only.

    A cycle is the images within `slop_ns` of its first one. It is over when each camera that it lacks has sent a
    later image, or when any image is later by another `patience_ns`: images of different cameras do not arrive in the
    order of their stamps. It also is when more than 500 images of a camera wait. With enough cameras it is a set as
    soon as every camera that sends at all has sent. A camera that has been silent for `silent_ns` is not waited for.
    When the stamps of the cameras go back by more than `reset_ns` (a bag that loops, a clock that jumps) it forgets
    all images. One camera alone, whose stamps jump by more than that, is left out until it is back (see
    `CommonClock`).

    All times are stamps in nanoseconds, so the speed of playback does not matter: the result depends on the sequence
    of calls only. Raises BridgeTAError for no cameras, a negative slop, and a minimum that they cannot meet.
    """

    def __init__(
        self,
        names: Sequence[str],
        slop_ns: int = round(DEFAULT_SLOP * _SECOND),
        *,
        minimum: int | None = None,
        matcher: Matcher[T] | None = None,
        patience_ns: int = _SECOND,
        silent_ns: int = _SECOND,
        reset_ns: int = _SECOND,
    ) -> None:
        if not names or slop_ns < 0:
            raise BridgeTAError(f"synchroniser of {list(names)} with a slop of {slop_ns} ns", exit_code=2)
        if minimum is not None and not 1 <= minimum <= len(names):
            raise BridgeTAError(f"sets of at least {minimum} of the cameras {list(names)} cannot be made", exit_code=2)
        self.counts = SyncCounts()
        self._names, self._slop, self._minimum = tuple(names), slop_ns, minimum
        self._matcher: Matcher[T] = matcher or ApproximateTimeMatcher(names, slop_ns)
        self._patience, self._silent = patience_ns, silent_ns
        self._clock: CommonClock[T] = CommonClock(names, reset_ns)
        self._waiting: dict[str, dict[int, T]] = {name: {} for name in names}
        self._used: dict[str, int] = {}  # newest stamp of each camera that no longer waits
        self._latest: dict[str, int] = {}  # newest stamp of each camera
        self._first = 0  # stamp of the first image of all

    def add(self, name: str, stamp_ns: int, item: T) -> list[ImageSet[T]]:
        """Take an image; return the sets that are ready: the one it completes, then one that lacks cameras.

        After a jump of time they are those of the images that were held back until it was sure.
        """
        images, went_back = self._clock.add(Stamped(name, stamp_ns, item))
        if went_back:
            self._forget()
        self.counts.astray = self._clock.astray.total()
        return [images_set for image in images for images_set in self._add(*image)]

    def _add(self, name: str, stamp_ns: int, item: T) -> list[ImageSet[T]]:
        if stamp_ns in self._waiting[name] or stamp_ns <= self._used.get(name, stamp_ns - 1):
            self.counts.late += 1
        else:
            if not self._latest:
                self._first = stamp_ns
            self._latest[name] = max(stamp_ns, self._latest.get(name, stamp_ns))
            self._waiting[name][stamp_ns] = item
        ready = []
        complete = self._matcher.add(name, stamp_ns, item)
        if complete is not None:
            self.counts.complete += 1
            self._take(complete.stamps)
            ready.append(complete)
        partial = self._pop_partial()
        if partial is not None:
            ready.append(partial)
        return ready

    def flush(self) -> None:
        """Count the cycles that still wait as incomplete, and images held back as astray: the streams have ended."""
        self._finish_cycles()
        self._clock.flush()
        self.counts.astray = self._clock.astray.total()

    def _finish_cycles(self) -> None:
        while any(self._waiting.values()):
            stamps = self._find_first_cycle()
            self._take(stamps)
            self._count_incomplete(stamps)

    def _forget(self) -> None:
        self._finish_cycles()
        self._matcher.clear()
        self._used.clear()
        self._latest.clear()
        self.counts.resets += 1

    def _pop_partial(self) -> ImageSet[T] | None:
        """Remove the cycles that are over; return the newest of them that has enough cameras."""
        result = None
        while any(self._waiting.values()):
            stamps = self._find_first_cycle()
            enough = self._minimum is not None and len(stamps) >= self._minimum
            awaited = self._find_sending() - stamps.keys()
            at_once = enough and len(stamps) < len(self._names) and not awaited
            crowded = any(len(items) > _MOST_WAITING for items in self._waiting.values())
            if not at_once and not crowded and not self._is_over(min(stamps.values()) + self._slop, awaited):
                break
            items = self._take(stamps)
            self._count_incomplete(stamps)
            if enough:
                result = ImageSet(items, stamps)
        return result

    def _count_incomplete(self, stamps: Mapping[str, int]) -> None:
        self.counts.incomplete += 1
        if 2 * len(stamps) < len(self._find_sending()):
            return
        for name in self._names:
            if name not in stamps:
                self.counts.missed[name] = self.counts.missed.get(name, 0) + 1

    def _find_first_cycle(self) -> dict[str, int]:
        """Return the stamps by camera of the oldest cycle that waits."""
        oldest = {name: min(items) for name, items in self._waiting.items() if items}
        end = min(oldest.values()) + self._slop
        return {name: stamp for name, stamp in oldest.items() if stamp <= end}

    def _take(self, stamps: Mapping[str, int]) -> dict[str, T]:
        """Remove the images of these stamps; return those that were waiting."""
        items = {}
        for name, stamp in stamps.items():
            if stamp in self._waiting[name]:
                items[name] = self._waiting[name].pop(stamp)
            self._used[name] = max(stamp, self._used.get(name, stamp))
        return items

    def _is_over(self, end: int, awaited: set[str]) -> bool:
        """Return whether a cycle that ends at this stamp can get no more images."""
        newest = max(self._latest.values())
        if newest > end + self._patience:
            return True
        return newest > end and all(self._latest.get(name, end) > end for name in awaited)

    def _find_sending(self) -> set[str]:
        """Return the cameras that are worth waiting for."""
        newest = max(self._latest.values())
        return {name for name in self._names if self._latest.get(name, self._first) >= newest - self._silent}
