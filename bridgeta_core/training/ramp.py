"""How strong distillation is at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LAST = 0.2


@dataclass(frozen=True)
class Ramp:
    """The warm-up of `warmup` steps at full strength, for only the method's own modules are trained by it; then a rise
    from 0 to 1 over `rise` steps; and over the last fifth of all `steps` half a cosine from 1 to `final`. All of it
    times `peak`.
    """

    steps: int
    warmup: int = 0
    rise: int = 0
    peak: float = 1.0
    final: float = 1.0

    def warming(self, step: int) -> bool:
        """Whether the student waits."""
        return step < self.warmup

    def strength(self, step: int) -> float:
        """The factor on the terms that compare networks."""
        if self.warming(step):
            return self.peak
        risen = min(1.0, (step - self.warmup) / self.rise) if self.rise else 1.0
        late = max(0.0, step / max(1, self.steps) - (1 - _LAST)) / _LAST
        return self.peak * risen * (self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, late))) / 2)
