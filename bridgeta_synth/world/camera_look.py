"""The look of a camera: exposure, colours, lens, noise and drops, drawn once per camera and scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgeta_synth.world.light import Light

# Drops on the glass: (x, y, radius) of each, as shares of the image's width.
Drops = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class CameraLook:
    """The look of one camera in one scene.

    exposure: factor on top of the automatic exposure.
    white_balance: factors of red, green and blue.
    saturation: 1 leaves colours as they are, 0 makes grey.
    vignetting: share of the light that the corners lack.
    sharpness: above 0 sharpens as cameras do, below 0 blurs (-0.2: about one pixel).
    glare: share of the light that the lens scatters.
    noise: standard deviation of the noise in display values (0-1) at daylight exposure.
    black: what the darkest value is lifted to, in display values.
    drops: drops on the glass, (x, y, radius) as shares of the image's width.
    jpeg_quality: 1-100.
    """

    exposure: float
    white_balance: tuple[float, float, float]
    saturation: float
    vignetting: float
    sharpness: float
    glare: float
    noise: float
    black: float
    drops: Drops
    jpeg_quality: int


def draw_look(rng: np.random.Generator, light: Light) -> CameraLook:
    """Draw the look of one camera under a scene's light."""
    warm, green = rng.normal(0, 0.025, 2)
    dark = light.kind == "night"
    count = int(rng.poisson(3 + 16 * light.rain)) if light.rain > 0 else 0
    # Many small drops and few large ones.
    radii = 0.004 + 0.022 * rng.random(count) ** 3
    places = rng.random((count, 2)) * (1.0, 0.5625)
    return CameraLook(
        exposure=float(np.exp(rng.normal(0, 0.13))),
        white_balance=(float(1 + warm), float(1 + 0.5 * green), float(1 - warm)),
        saturation=float(rng.uniform(0.58, 0.92)),
        vignetting=float(rng.uniform(0.05, 0.28)),
        sharpness=float(rng.uniform(-0.12, 0.14)),
        glare=float(rng.uniform(0.02, 0.05) + 0.03 * dark + 0.03 * light.rain),
        noise=float(rng.uniform(0.004, 0.010)),
        black=float(rng.uniform(0.0, 0.03)),
        drops=tuple((float(x), float(y), float(r)) for (x, y), r in zip(places, radii, strict=True)),
        jpeg_quality=int(rng.integers(82, 96)),
    )
