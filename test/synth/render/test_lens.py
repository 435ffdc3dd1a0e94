"""The lens scatters light without losing any."""

from __future__ import annotations

import pytest
import torch

from bridgeta_synth.render.lens import shrink, spread_glare


def test_glare_spreads_a_lamp_and_keeps_the_light() -> None:
    dark = torch.full((3, 128, 160), 0.01)
    dark[:, 60:68, 70:78] = 20.0
    spread = spread_glare(shrink(dark), 128, 160)
    assert float(spread.mean()) == pytest.approx(float(dark.mean()), rel=0.1)
    assert float(spread[0, 64, 100]) > 1.5 * 0.01
    assert float(spread[0, 64, 84]) > float(spread[0, 64, 120])
