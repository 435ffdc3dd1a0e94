"""The light of scenes is plausible, as frequent as in nuScenes, and named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.settings import WEATHERS
from bridgeta_synth.world.light import draw_light


def test_night_and_rain_are_about_as_frequent_as_in_nuscenes() -> None:
    rng = np.random.default_rng(0)
    lights = [draw_light(rng) for _ in range(3000)]
    assert np.mean([light.kind == "night" for light in lights]) == pytest.approx(0.12, abs=0.02)
    assert np.mean([light.rain > 0 for light in lights]) == pytest.approx(0.20, abs=0.025)
    assert {light.kind for light in lights} == {"clear", "overcast", "dusk", "night"}


@given(st.integers(0, 10_000), st.sampled_from(WEATHERS))
@settings(max_examples=100)
def test_every_light_is_physically_plausible(seed: int, weather: str) -> None:
    light = draw_light(np.random.default_rng(seed), weather)
    assert math.hypot(*light.sun) == pytest.approx(1)
    assert light.sun[2] >= math.sin(math.radians(5)) - 1e-9
    for colour in (light.sun_colour, light.sky_colour, light.horizon_colour, light.lamp_colour):
        assert min(colour) >= 0
    assert 0 <= light.wet <= 1
    assert 0 <= light.rain <= 1
    assert 0 <= light.cloud <= 1
    assert light.haze > 80
    # Where it rains the road is wet, and where it is dark lamps are on.
    assert light.wet > 0.5 or light.rain == 0
    assert light.lamps or light.kind in ("clear", "overcast")
    assert light == draw_light(np.random.default_rng(seed), weather)


@pytest.mark.parametrize("weather", ["clear", "overcast", "dusk", "night"])
def test_a_named_weather_gives_its_kind(weather: str) -> None:
    rng = np.random.default_rng(1)
    assert {draw_light(rng, weather).kind for _ in range(50)} == {weather}


def test_rain_comes_by_day_and_by_night() -> None:
    rng = np.random.default_rng(2)
    lights = [draw_light(rng, "rain") for _ in range(200)]
    assert all(light.rain > 0 for light in lights)
    assert {light.kind for light in lights} == {"clear", "overcast", "dusk", "night"}


def test_keywords_name_night_and_rain() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        light = draw_light(rng)
        assert ("night" in light.keywords()) == (light.kind == "night")
        assert ("rain" in light.keywords()) == (light.rain > 0)


def test_days_are_brighter_than_dusk_and_dusk_than_night() -> None:
    rng = np.random.default_rng(4)

    def brightness(weather: str) -> list[float]:
        lights = [draw_light(rng, weather) for _ in range(100)]
        return [light.ambient[1] + light.sun[2] * light.sun_colour[1] for light in lights]

    assert min(brightness("clear")) > max(brightness("dusk"))
    assert min(brightness("overcast")) > max(brightness("dusk"))
    assert min(brightness("dusk")) > max(brightness("night"))


def test_an_unknown_weather_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(BridgeTAError, match=r"snow.*overcast"):
        draw_light(np.random.default_rng(0), "snow")
