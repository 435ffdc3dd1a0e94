"""Settings of the related methods of distillation; docs/distillation.md has a paragraph and a formula for each."""

from __future__ import annotations

from dataclasses import dataclass

from bridgeta_core.utils.settings import setting


@dataclass
class OfaKdConfig:
    """Features of the student as class logits (OFA-KD)."""

    output: float = setting(1.0, "weight of the student's own logits against the teacher's", ge=0)
    branches: float = setting(1.0, "weight of each branch's logits against the teacher's", ge=0)
    present: float = setting(1.2, "exponent that enhances what the label says, where a class is present", ge=1, le=4)
    absent: float = setting(1.0, "the same where a class is absent; above 1 the background swamps the rest", ge=1, le=4)
