"""The clock and the name of the machine, for all measurements."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridgeta_core.utils.machine import read_cpu_name as read_cpu_name


def milliseconds(call: Callable[[], object]) -> float:
    """Measure the wall time of one call in milliseconds."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
