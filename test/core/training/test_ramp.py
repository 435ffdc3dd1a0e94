"""How strong distillation is at each step."""

from __future__ import annotations

import math

import pytest

from bridgeta_core.training.ramp import Ramp


def test_it_warms_up_then_rises_then_holds_then_falls():
    ramp = Ramp(steps=1000, warmup=100, rise=200, peak=2.0, final=0.5)
    assert [ramp.warming(step) for step in (0, 99, 100)] == [True, True, False]
    expected = {50: 2.0, 100: 0.0, 150: 0.5, 200: 1.0, 300: 2.0, 800: 2.0, 900: 1.5, 1000: 1.0}
    assert {step: ramp.strength(step) for step in expected} == pytest.approx(expected)
    assert ramp.strength(850) == pytest.approx(2 * (0.5 + 0.25 * (1 + math.cos(math.pi / 4))))


def test_without_a_rise_it_is_at_full_strength_at_once():
    assert Ramp(steps=10).strength(0) == Ramp(steps=10).strength(9) == 1.0
