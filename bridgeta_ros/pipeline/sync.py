"""Sets of messages of one moment, one of each camera, from streams with their own stamps."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bridgeta_core.utils.errors import BridgeTAError

T = TypeVar("T")

DEFAULT_SLOP = 0.06  # s; a nuScenes cycle spreads over 42.6 ms, and 73 ms is the least that mixes two of them


@dataclass(frozen=True)
class ImageSet(Generic[T]):
    """One item of each camera, with their stamps in nanoseconds."""

    items: Mapping[str, T]
    stamps: Mapping[str, int]

    @property
    def newest_ns(self) -> int:
        """The stamp of the set: that of its newest item."""
        return max(self.stamps.values())

    @property
    def spread_ns(self) -> int:
        """Between the oldest and the newest item."""
        return self.newest_ns - min(self.stamps.values())


@dataclass
class SyncCounts:
    """What became of the messages: sets handed out, cycles that lacked cameras, messages that were no use."""

    complete: int = 0
    incomplete: int = 0
    late: int = 0  # messages as old as one already used of their camera, duplicates among them
    resets: int = 0


@dataclass(order=True)
class _Entry(Generic[T]):
    stamp: int
    item: T = field(compare=False)


@dataclass
class _Cycle:
    """Unused messages that belong together: the remains of one incomplete set."""

    oldest: int
    newest: int
    names: set[str]


class Synchroniser(Generic[T]):
    """Approximate-time synchronisation without ROS.

    A set is handed out as soon as it is complete: one item of each camera, their stamps within `slop_ns` of each
    other, the newest that fit. No item is used twice. Items may come out of order. Stamps of a camera that go back
    by more than `reset_ns` (a bag that loops, a clock that jumps) start everything anew. A camera that falls silent
    costs `depth` items of memory per other camera. The result depends on the sequence of calls only.
    """

    def __init__(
        self,
        names: Sequence[str],
        slop_ns: int = round(DEFAULT_SLOP * 1e9),
        *,
        reset_ns: int = 1_000_000_000,
        depth: int = 10,
    ) -> None:
        if not names or slop_ns < 0:
            raise BridgeTAError(f"synchroniser of {list(names)} with a slop of {slop_ns} ns", exit_code=2)
        self.counts = SyncCounts()
        self._slop, self._reset, self._depth = slop_ns, reset_ns, depth
        self._queues: dict[str, list[_Entry[T]]] = {name: [] for name in names}
        self._used: dict[str, int] = {}  # newest stamp of each camera that left its queue
        self._latest: dict[str, int] = {}  # newest stamp of each camera that came in
        self._cycle: _Cycle | None = None

    def add(self, name: str, stamp_ns: int, item: T) -> ImageSet[T] | None:
        """Take an item; return the set that it completes, if it does."""
        if stamp_ns < self._latest.get(name, stamp_ns) - self._reset:
            self.reset()
            self.counts.resets += 1
        queue = self._queues[name]
        entry = _Entry(stamp_ns, item)
        place = bisect_right(queue, entry)
        if stamp_ns <= self._used.get(name, stamp_ns - 1) or (place and queue[place - 1].stamp == stamp_ns):
            self.counts.late += 1
            return None
        insort(queue, entry)
        self._latest[name] = max(stamp_ns, self._latest.get(name, stamp_ns))
        result = self._complete()
        if len(queue) > self._depth:
            self._discard({name: len(queue) - self._depth})
        return result

    def _complete(self) -> ImageSet[T] | None:
        queues = self._queues
        while all(queues.values()):
            # Whatever is older than this cannot be in a set: one camera has nothing as old any more.
            pivot = max(queue[0].stamp for queue in queues.values())
            stale = {n: bisect_right(q, pivot - self._slop - 1, key=_stamp) for n, q in queues.items()}
            if any(stale.values()):
                self._discard(stale)
                continue
            self._discard({n: bisect_right(q, pivot, key=_stamp) - 1 for n, q in queues.items()})
            chosen = {name: queue.pop(0) for name, queue in queues.items()}
            stamps = {name: entry.stamp for name, entry in chosen.items()}
            self._used.update(stamps)
            self.counts.complete += 1
            return ImageSet({name: entry.item for name, entry in chosen.items()}, stamps)
        return None

    def _discard(self, counts: Mapping[str, int]) -> None:
        """Drop the first items of the queues, and count the incomplete sets that they were."""
        gone: list[tuple[int, str]] = []
        for name, count in counts.items():
            if count > 0:
                gone += [(entry.stamp, name) for entry in self._queues[name][:count]]
                del self._queues[name][:count]
                self._used[name] = max(self._used.get(name, gone[-1][0]), gone[-1][0])
        for stamp, name in sorted(gone):
            cycle = self._cycle
            if cycle is not None and name not in cycle.names:
                oldest, newest = min(cycle.oldest, stamp), max(cycle.newest, stamp)
                if newest - oldest <= self._slop:
                    cycle.oldest, cycle.newest = oldest, newest
                    cycle.names.add(name)
                    continue
            self._cycle = _Cycle(stamp, stamp, {name})
            self.counts.incomplete += 1

    def flush(self) -> None:
        """The streams have ended: what still waits is incomplete."""
        self._discard({name: len(queue) for name, queue in self._queues.items()})

    def reset(self) -> None:
        """Forget all stamps, as after a jump of the clock; the counts stay."""
        self.flush()
        self._used.clear()
        self._latest.clear()
        self._cycle = None


def _stamp(entry: _Entry[T]) -> int:
    return entry.stamp
