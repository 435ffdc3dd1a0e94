"""The scores of the shipped weights on unseen towns, as `bench/shipped.py` measured them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

STUDENT, BASELINE = "tiny", "tiny_labels"
"""The shipped student, and the same network trained as long on the same labels without a teacher."""

FILE = "scores.json"


@dataclass(frozen=True)
class ShippedScores:
    """The mean IoU, a share of 1, of the shipped student and of its baseline, over `samples` of the data `data`."""

    student: float
    baseline: float
    samples: int
    data: str

    @classmethod
    def load(cls) -> ShippedScores:
        """Load the scores that ship with the weights."""
        text = (resources.files("bridgeta_core.deploy") / "pretrained" / FILE).read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text)
        student, baseline = content["evaluations"][STUDENT], content["evaluations"][BASELINE]
        return cls(student["miou"], baseline["miou"], student["samples"], content["data"])

    def describe_gain(self) -> str:
        """Describe the gain of distillation in one sentence."""
        gain = 100 * (self.student - self.baseline)
        return (
            f"{STUDENT} was distilled: mIoU {100 * self.student:.1f} % on {self.samples} samples of {self.data}; "
            f"the same network on labels alone ({BASELINE}) {100 * self.baseline:.1f} %, a gain of {gain:+.1f} points "
            "(one run each)"
        )
