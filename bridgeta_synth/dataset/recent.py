"""Things that are costly to make and are asked for again soon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Makes things by number and keeps the `size` that were asked for last. May be used from several threads.

    A copy in another process starts empty.
    """

    def __init__(self, make: Callable[[int], T], size: int) -> None:
        self._make, self._size = make, size
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, number: int) -> T:
        """The thing of this number."""
        with self._lock:
            if number not in self._kept:
                made = self._make(number)
                self._kept[number] = made
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_make"], state["_size"])  # type: ignore[misc]
