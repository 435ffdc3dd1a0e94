"""The image of the ground: paint, wear, scales, and static light."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from shapely.geometry import Polygon, box
from torch import Tensor

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.render.ground import STEPS, Ground, find_extent
from bridgeta_synth.render.looks.paint import GroundPainter, make_textures
from bridgeta_synth.render.shadows import (
    outline_shadows,
)
from bridgeta_synth.render.static_light import StaticLight
from bridgeta_synth.world import materials
from bridgeta_synth.world.light import Light, draw_light
from bridgeta_synth.world.solids import FACADE, POLE, SolidList, Solids
from bridgeta_synth.world.terrain import Terrain

CPU = torch.device("cpu")
FLAT = Terrain(np.zeros((260, 260), dtype=np.float32), 2.0, (-260.0, -260.0))
PATH = np.array([[0.0, 0.0], [6.0, 0.0]])
ALBEDO, REFLECTIVITY, SUN, SKY, LAMP, GLOSS = slice(0, 3), 3, 4, 5, 6, 7
STREET = (materials.ASPHALT, box(-150, -8, 150, 8))


def light(weather: str = "clear", elevation: float = 45.0, **changes: object) -> Light:
    """Make a light with the sun in the east."""
    drawn = draw_light(np.random.default_rng(0), weather)
    e = math.radians(elevation)
    return dataclasses.replace(drawn, sun=(math.cos(e), 0.0, math.sin(e)), **changes)  # type: ignore[arg-type]


def no_solids() -> Solids:
    return SolidList().build()


def static(given_light: Light, still: Solids, lamps: Floats | None = None, terrain: Terrain = FLAT) -> StaticLight:
    low, high = find_extent(PATH, 90.0)
    lamps = np.zeros((0, 3)) if lamps is None else lamps
    rng = np.random.default_rng(0)
    return StaticLight(terrain, still, lamps, given_light, make_textures((3, 0)), low, high, rng, CPU)


def ground(
    surface: list[tuple[int, Polygon]],
    given_light: Light | None = None,
    still: Solids | None = None,
    lamps: Floats | None = None,
    seed: tuple[int, ...] = (3, 0),
) -> Ground:
    low, high = find_extent(PATH, 90.0)
    paint = GroundPainter(surface, make_textures((3, 0)), seed, 0, 0.4, low, high)
    return Ground(paint, static(given_light or light(), still or no_solids(), lamps), PATH, CPU, 90.0)


def look(image: Ground, places: Floats, size: float = 0.02) -> Tensor:
    """Look up places `[n, 2]`, `[8, n]`, for pixels of `size` metres."""
    x, y = torch.from_numpy(places.astype(np.float32)).unbind(1)
    return image.look_up(x, y, torch.full((2, len(x)), 1e-3), torch.full_like(x, size), torch.full_like(x, 0.5))


def area(x0: float, y0: float, x1: float, y1: float, count: int = 60) -> Floats:
    x, y = np.meshgrid(np.linspace(x0, x1, count), np.linspace(y0, y1, count))
    return np.stack((x, y), axis=-1).reshape(-1, 2)


@pytest.fixture(scope="module")
def street() -> Ground:
    marks = [
        (materials.WHITE, box(-40, 1.0, 60, 1.5)),
        (materials.WHITE_WORN, box(-40, 3.0, 60, 3.5)),
        (materials.WHITE, box(10, -3.5, 20, -3.0)),
        (materials.PATCH, box(12, -5, 18, -2)),
    ]
    return ground([STREET, *marks])


def test_paint_is_in_place_and_brighter_than_the_road(street: Ground) -> None:
    paint, road = look(street, area(0, 1.1, 8, 1.4)), look(street, area(0, -1.4, 8, -1.1))
    assert paint[ALBEDO].mean() > 3 * road[ALBEDO].mean()
    assert paint[REFLECTIVITY].mean() > 3 * road[REFLECTIVITY].mean()
    # Five centimetres within and without the stripe's edge.
    assert look(street, area(0, 1.45, 8, 1.45))[ALBEDO].mean() > 2 * look(street, area(0, 1.56, 8, 1.56))[ALBEDO].mean()


def test_worn_paint_lets_some_of_the_road_through(street: Ground) -> None:
    worn, paint, road = (look(street, area(-6, y, 12, y + 0.3, 120))[1].numpy() for y in (3.1, 1.1, -1.4))
    assert road.mean() * 1.5 < worn.mean() < 0.9 * paint.mean()
    assert worn.std() > 2 * paint.std()


def test_a_later_surface_covers_the_marks_below_it(street: Ground) -> None:
    assert look(street, area(13, -3.4, 17, -3.1))[ALBEDO].max() < 0.2
    assert look(street, area(10.2, -3.4, 11.8, -3.1))[ALBEDO].mean() > 0.3


@pytest.mark.parametrize("size", [0.02, *STEPS])
def test_all_scales_show_the_same_ground(street: Ground, size: float) -> None:
    """Means over large areas agree within a tenth, on the paint's stripe and off it."""
    for y0, y1 in ((-2.0, 4.0), (-8.0, -5.5)):
        places = area(-6, y0, 12, y1, 150)
        reference, here = look(street, places).mean(dim=1), look(street, places, size).mean(dim=1)
        torch.testing.assert_close(here[:5], reference[:5], rtol=0.1, atol=0.01)


def test_far_from_the_path_the_ground_is_still_there(street: Ground) -> None:
    far = look(street, area(60, -6, 85, -2), 0.3)
    near = look(street, area(-6, -8, 6, -5.5))
    assert far[ALBEDO].mean() == pytest.approx(float(near[ALBEDO].mean()), rel=0.15)
    assert torch.isfinite(look(street, np.array([[1e4, -1e4]]))).all()


def test_equal_seeds_paint_equal_ground_and_splits_differ() -> None:
    surface = [STREET]
    first, again, other = (ground(surface, seed=seed) for seed in ((3, 0), (3, 0), (3, 2)))
    places = area(-5, -7, 5, 7)
    assert torch.equal(look(first, places), look(again, places))
    assert not torch.equal(look(first, places), look(other, places))
    assert look(other, places)[ALBEDO].mean() == pytest.approx(float(look(first, places)[ALBEDO].mean()), rel=0.8)


def test_every_material_has_a_plausible_albedo() -> None:
    surface = [(m, box(i, 0, i + 1, 5)) for i, m in enumerate(range(len(materials.MATERIALS)))]
    image = ground(surface)
    for i in range(len(surface)):
        seen = look(image, area(i + 0.2, 0.5, i + 0.8, 4.5))[ALBEDO]
        assert 0.004 < seen.mean() < 0.85


def test_a_posts_shadow_is_as_long_as_the_post_at_45_degrees() -> None:
    solids = SolidList()
    solids.add(POLE, (2.0, 0.0, 0.0), (0.4, 0.4, 6.0), (0.5, 0.5, 0.5))
    (ring,) = outline_shadows(solids.build(), FLAT, light(elevation=45).sun)
    assert ring[:, 0].min() == pytest.approx(2.0 - 0.2 - 6.0, abs=0.01)
    image = ground([STREET], light(elevation=45), solids.build())
    sun = look(image, np.array([[-1.0, 0.0], [-1.0, 1.0], [3.0, 0.0], [-5.0, 0.0]]))[SUN]
    assert sun[0] < 0.1
    assert (sun[1:3] > 0.9).all()
    assert look(image, np.array([[-4.6, 0.0]]))[SUN] > 0.9


def test_a_wall_shades_what_is_behind_it_up_to_the_suns_ray() -> None:
    solids = SolidList()
    solids.add(FACADE, (10.0, 0.0, 0.0), (2.0, 20.0, 9.0), (0.5, 0.5, 0.5))
    shade = static(light(elevation=45), solids.build())
    # Five metres behind the wall's back the line lies at about 4 m.
    points = torch.tensor([[4.0, 4.0, 16.0], [0.0, 0.0, 0.0], [1.0, 6.5, 1.0]])
    seen = shade.sunlight_at(points, torch.zeros(3), torch.zeros(3))
    assert seen.tolist() == [0.0, 1.0, 1.0]
    # The side that faces the sun does not shade itself.
    z = torch.linspace(0.1, 8.9, 40)
    front = torch.stack((torch.full_like(z, 11.0), torch.zeros_like(z), z))
    assert (shade.sunlight_at(front, torch.zeros_like(z), torch.zeros_like(z)) == 1).all()


def test_lamps_light_the_road_below_them_at_night_only() -> None:
    lamps = np.array([[3.0, 0.0, 8.0]])
    below, beside = np.array([[3.0, 0.0]]), np.array([[18.0, 0.0]])
    night, day = ground([STREET], light("night"), lamps=lamps), ground([STREET], light(), lamps=lamps)
    assert look(night, below)[LAMP] > 2 * look(night, beside)[LAMP] > 0
    assert look(day, below)[LAMP] == 0


def test_houses_hide_part_of_the_sky_beside_them() -> None:
    solids = SolidList()
    solids.add(FACADE, (0.0, 14.0, 0.0), (30.0, 10.0, 15.0), (0.5, 0.5, 0.5))
    image = ground([STREET], light("overcast"), solids.build())
    assert look(image, np.array([[0.0, 8.0]]))[SKY] < look(image, np.array([[0.0, -20.0]]))[SKY] - 0.15


def test_rain_wets_asphalt_and_not_grass() -> None:
    surface, wet = [STREET], light("rain", wet=0.8)
    places = (area(-5, -6, 5, 6), area(-5, 10, 5, 15))
    asphalt, grass = (look(ground(surface, wet), p)[GLOSS] for p in places)
    assert asphalt.mean() > 0.2
    assert asphalt.max() > asphalt.min() + 0.3
    assert grass.max() == 0
    assert look(ground(surface), places[0])[GLOSS].max() == 0
