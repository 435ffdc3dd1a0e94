"""What the measurements share: a clock and the machine's name."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridgeta_core.utils.machine import read_cpu_name as read_cpu_name


def milliseconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
