"""The light and the weather of a scene: sun, sky, haze, street lamps, and how wet everything is.

Colours are linear RGB in one unit throughout: the radiance of a white diffuse surface that the noon sun shows alone is
about 3. Exposure and all else that a camera does are in `camera_look`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.settings import WEATHERS
from bridgeta_synth.world.solids import Colour

_KINDS = ("clear", "overcast", "dusk", "night")
# Shares of the kinds, and of rain within each: about 12 % night and 20 % rain, as in nuScenes.
_SHARES = (0.50, 0.28, 0.10, 0.12)
_RAIN = {"clear": 0.03, "overcast": 0.50, "dusk": 0.20, "night": 0.20}
_IN_RAIN = (0.06, 0.70, 0.12, 0.12)
# Street lamps: sodium, warm and neutral LEDs.
_LAMPS: tuple[Colour, ...] = ((1.0, 0.60, 0.24), (1.0, 0.78, 0.52), (0.95, 0.92, 0.82))


@dataclass(frozen=True)
class Light:
    """The light and the weather of a scene.

    kind: clear, overcast, dusk or night.
    sun: unit vector towards the sun, never lower than 5 degrees, so that shadows have an end.
    sun_colour: radiance of a white diffuse surface that faces the sun.
    sky_colour, horizon_colour: radiance of the sky at the zenith and at the horizon.
    cloud: share of the sky that is clouded, 0 to 1.
    haze: metres after which haze makes up 63 % of what is seen.
    lamps: whether street lamps and headlights are on; lamp_colour: that of the street lamps.
    wet: how wet the ground is, 0 to 1; rain: how hard it rains, 0 to 1.
    """

    kind: str
    sun: tuple[float, float, float]
    sun_colour: Colour
    sky_colour: Colour
    horizon_colour: Colour
    cloud: float
    haze: float
    lamps: bool
    lamp_colour: Colour
    wet: float
    rain: float

    @property
    def ambient(self) -> Colour:
        """Radiance of a white diffuse surface that faces up, under the whole sky and no sun."""
        pairs = zip(self.sky_colour, self.horizon_colour, strict=True)
        red, green, blue = (0.6 * zenith + 0.4 * horizon for zenith, horizon in pairs)
        return red, green, blue

    def keywords(self) -> list[str]:
        """List the words for light and weather in a scene's description, for example ["night", "rain"]."""
        words = [] if self.kind == "clear" else [self.kind]
        if self.rain > 0:
            words.append("rain")
        elif self.wet > 0:
            words.append("wet road")
        return words


def draw_light(rng: np.random.Generator, weather: str = "mixed") -> Light:
    """Draw the light of a scene: any kind for "mixed", with rain for "rain", otherwise of the named kind.

    Raises BridgeTAError for an unknown weather.
    """
    if weather not in WEATHERS:
        known = ", ".join(WEATHERS)
        raise BridgeTAError(f"there is no weather '{weather}', it must be one of {known}", exit_code=2)
    raining = weather == "rain"
    kind = weather if weather in _KINDS else str(rng.choice(_KINDS, p=_IN_RAIN if raining else _SHARES))
    raining = bool(rng.random() < _RAIN[kind]) or raining
    rain = float(rng.uniform(0.25, 1.0)) if raining else 0.0
    # The road stays wet for a while.
    damp = kind != "clear" and rng.random() < 0.12
    wet = float(rng.uniform(0.6, 1.0)) if raining else float(rng.uniform(0.3, 0.8)) if damp else 0.0
    azimuth = float(rng.uniform(-math.pi, math.pi))
    elevation = math.radians(float(rng.uniform(*{"clear": (18, 72), "overcast": (30, 70)}.get(kind, (5, 11)))))
    across = math.cos(elevation)
    sun = (across * math.cos(azimuth), across * math.sin(azimuth), math.sin(elevation))
    warm, tint = float(rng.uniform(0, 1)), float(rng.uniform(-1, 1))
    lamp_colour = _LAMPS[int(rng.integers(len(_LAMPS)))]
    lamps, cloud, haze = False, 1.0, float(rng.uniform(350, 1000))
    sun_colour: Colour
    sky: Colour
    horizon: Colour
    if kind == "clear":
        # The lower the sun, the redder and weaker its light.
        low = 1 - math.sin(elevation)
        strength = 3.3 * (1 - 0.45 * low)
        sun_colour = (strength, strength * (0.97 - 0.10 * low), strength * (0.92 - 0.28 * low))
        sky, horizon = (0.34, 0.50, 0.82), (1.02, 1.12, 1.24)
        cloud, haze = float(rng.uniform(0.0, 0.7)), float(rng.uniform(450, 1200))
    elif kind == "overcast":
        # Through thin clouds the sun still casts weak shadows.
        strength = 0.5 * max(warm - 0.4, 0)
        sun_colour = (strength, strength, strength)
        sky, horizon = (0.86, 0.90, 0.96 + 0.05 * tint), (0.98, 1.02, 1.06 + 0.05 * tint)
    elif kind == "dusk":
        # From the last sun to the first stars.
        sun_colour = (0.55 * warm, 0.27 * warm, 0.10 * warm)
        glow = 0.3 + 0.7 * warm
        sky = (0.055 * glow, 0.085 * glow, 0.17 * glow)
        horizon = (0.42 * glow, 0.27 * glow, 0.20 * glow)
        cloud, haze, lamps = float(rng.uniform(0.1, 0.8)), float(rng.uniform(300, 800)), True
    else:
        sun_colour = (0.0, 0.0, 0.0)
        glow = 0.5 + warm
        sky = (0.0012 * glow, 0.0014 * glow, 0.0022 * glow)
        horizon = (0.0060 * glow, 0.0050 * glow, 0.0044 * glow)
        cloud, haze, lamps = float(rng.uniform(0.0, 1.0)), float(rng.uniform(300, 900)), True
    if raining:
        # Rain clouds dim and grey the light and veil the distance.
        dim = 0.75 - 0.3 * rain
        sun_colour = _scale(sun_colour, 0.35 if kind == "clear" else 0.0)
        sky, horizon = _to_grey(sky, dim), _to_grey(horizon, dim)
        cloud, haze = max(cloud, 0.9), haze * (0.9 - 0.4 * rain)
        lamps = lamps or rain > 0.5
    return Light(kind, sun, sun_colour, sky, horizon, cloud, haze, lamps, lamp_colour, wet, rain)


def _scale(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _to_grey(colour: Colour, factor: float) -> Colour:
    """Dim a colour and shift it three quarters of the way to grey."""
    mean = sum(colour) / 3
    red, green, blue = (factor * (0.25 * value + 0.75 * mean) for value in colour)
    return red, green, blue
