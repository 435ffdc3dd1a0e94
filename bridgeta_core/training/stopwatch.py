"""How long a run takes, over all its resumptions."""

from __future__ import annotations

import statistics
import time
from typing import Any

from lightning.pytorch.callbacks import Callback

_SKIPPED = 3
"""First steps of an epoch that are not counted: loaders start, caches fill."""


class Stopwatch(Callback):
    """`seconds` since the start, and the time from one step of the optimiser to the next, loading included."""

    def __init__(self) -> None:
        self._start, self._before = time.monotonic(), 0.0
        self._steps: list[float] = []
        self._skipped: list[float] = []

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run; what was lost when a run broke off is not part of it."""
        return self._before + time.monotonic() - self._start

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the steps, None without any."""
        return statistics.median(self._steps or self._skipped) if self._steps or self._skipped else None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Validation lies between epochs."""
        self._last, self._at, self._of_epoch = time.monotonic(), trainer.global_step, 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """A step may have several batches."""
        if trainer.global_step == self._at:
            return
        now = time.monotonic()
        self._of_epoch += 1
        (self._steps if self._of_epoch > _SKIPPED else self._skipped).append(now - self._last)
        self._last, self._at = now, trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "steps": self._steps, "skipped": self._skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before, self._steps, self._skipped = (state_dict[key] for key in ("seconds", "steps", "skipped"))
