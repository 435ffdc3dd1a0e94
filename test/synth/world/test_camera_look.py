"""The looks of cameras suit the weather."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridgeta_synth.world.camera_look import draw_look
from bridgeta_synth.world.light import draw_light


def test_only_rainy_scenes_put_drops_on_the_glass() -> None:
    rng = np.random.default_rng(6)
    dry = replace(draw_light(np.random.default_rng(0), "clear"), rain=0.0)
    wet = replace(draw_light(np.random.default_rng(0), "overcast"), rain=1.0)
    assert not any(draw_look(rng, dry).drops for _ in range(20))
    assert np.mean([len(draw_look(rng, wet).drops) for _ in range(50)]) > 10
    assert all(60 <= draw_look(rng, dry).jpeg_quality <= 100 for _ in range(20))
