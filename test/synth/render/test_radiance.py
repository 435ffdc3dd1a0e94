"""Radiance of what cameras see: shadows, lamps, wet ground, haze; and a LiDAR's returns."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box
from torch import Tensor

from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.render.radiance import Shader
from bridgeta_synth.render.rays.ground_shape import GroundShape
from bridgeta_synth.render.rays.ray_caster import GROUND, KERB, NOTHING, Traced, View, trace_views
from bridgeta_synth.world import materials
from bridgeta_synth.world.light import Light, draw_light
from bridgeta_synth.world.solids import BODY, CROWN, FACADE, FENCE, SIGN, WALL, SolidList, Solids
from bridgeta_synth.world.terrain import Terrain

CPU = torch.device("cpu")
WIDTH, HEIGHT = 160, 90
STREET = box(-120, -8, 120, 8)
INTRINSICS = np.array([[120.0, 0, 79.5], [0, 120.0, 44.5], [0, 0, 1]])
# An optical frame that looks ahead, and one that looks back.
AHEAD = rigid((1.5, 0, 1.5), (0.5, -0.5, 0.5, -0.5))
BACK = rigid((0.0, 0, 1.5), (0.5, -0.5, -0.5, 0.5))


def light(weather: str = "clear", elevation: float = 40.0, **changes: object) -> Light:
    """Make a light without rain or clouds, the sun in the east, ahead of the cameras that look ahead."""
    e = math.radians(elevation)
    plain = {"sun": (math.cos(e), 0.0, math.sin(e)), "rain": 0.0, "wet": 0.0, "cloud": 0.0, "haze": 1e4}
    drawn = draw_light(np.random.default_rng(0), weather)
    return dataclasses.replace(drawn, **{**plain, **changes})  # type: ignore[arg-type]


class Stage:
    """A street eastwards with the ego at the origin, still solids, and actors that move with `poses`."""

    def __init__(
        self,
        given: Light,
        still: SolidList | None = None,
        lamps: list[tuple[float, float, float]] | None = None,
        bodies: SolidList | None = None,
        speed: float = 5.0,
    ) -> None:
        terrain = Terrain(np.zeros((200, 200), dtype=np.float32), 2.0, (-200.0, -200.0))
        surface = [(materials.ASPHALT, STREET), (materials.KERB, box(-120, 8, 120, 8.2))]
        surface += [(materials.WHITE, box(4, -3, 40, -2.5))]
        self.lamps = np.array(lamps or []).reshape(-1, 3)
        self.still = (still or SolidList()).build()
        self.bodies = (bodies or SolidList()).build()
        self.ground_shape = GroundShape(terrain, 0.15, STREET, np.zeros((2, 2)), CPU)
        actors = [SimpleNamespace(is_still=False, manner="vehicle", size=(1.8, 4.4, 1.5))] * int(len(self.bodies) > 0)
        for actor in actors:
            actor.motion = SimpleNamespace(speed=lambda time: speed)
        town = SimpleNamespace(terrain=terrain, surface=surface, lamps=self.lamps)
        self.scene: Any = SimpleNamespace(
            index=0,
            duration=1.0,
            light=given,
            town=town,
            actors=actors,
            bodies=self.bodies,
            ego_pose=lambda time: np.eye(4),
            poses=self.poses,
        )
        self.shader = Shader(self.scene, (5, 0), self.still, self.ground_shape, CPU)

    def poses(self, time: float) -> Floats:
        """Drive actors east at 5 m/s, starting 12 m ahead."""
        return rigid((12 + 5 * time, 0, 0), (1.0, 0, 0, 0))[None][: len(self.scene.actors)]

    def traced(self, time: float = 0.0, cam: Floats = AHEAD) -> Traced:
        parts = [self.still]
        if len(self.bodies):
            parts.append(self.bodies.transform(self.poses(time)))
        return trace_views(self.ground_shape, Solids.join(parts), [View(cam, INTRINSICS, WIDTH, HEIGHT)], CPU)

    def radiance(self, time: float = 0.0, cam: Floats = AHEAD) -> Tensor:
        """Render `[h, w, 3]`."""
        return self.shader.compute_radiance(self.traced(time, cam), [time]).reshape(HEIGHT, WIDTH, 3)

    def at(self, x: float, y: float, time: float = 0.0) -> float:
        """Measure the mean radiance of the ground around a place, as the camera that looks ahead sees it."""
        traced = self.traced(time)
        image = self.shader.compute_radiance(traced, [time])
        points = traced.points(torch.arange(WIDTH * HEIGHT))
        near = (torch.hypot(points[:, 0] - x, points[:, 1] - y) < 0.3 + 0.03 * x) & (traced.row == GROUND)
        assert near.any()
        return float(image[near].mean())


Row = tuple[int, tuple[float, float, float], tuple[float, float, float]]


def solids(*rows: Row, seed: int = 0, owner: int = -1, yaw: float = 0.0) -> SolidList:
    result = SolidList()
    for kind, centre, size in rows:
        result.add(kind, centre, size, (0.6, 0.6, 0.6), seed=seed, owner=owner, yaw=yaw)
    return result


EVERYTHING = solids(
    *((kind, (10.0 + 1.2 * kind, 5 - kind % 9, 0.0), (0.8, 0.9, 1.4)) for kind in range(FENCE + 1)), seed=11
)


@pytest.mark.parametrize("weather", ["clear", "overcast", "dusk", "night", "rain"])
def test_radiance_is_finite_for_all_kinds_in_all_weathers(weather: str) -> None:
    drawn = draw_light(np.random.default_rng(3), weather)
    bodies = solids((BODY, (0, 0, 0.2), (4.4, 1.8, 1.2)), owner=0)
    stage = Stage(drawn, EVERYTHING, [(6.0, 4.0, 8.0), (20.0, -4.0, 8.0)], bodies)
    for cam in (AHEAD, BACK):
        image = stage.radiance(0.3, cam)
        assert torch.isfinite(image).all()
        assert image.min() >= 0
        assert image.std() > 0
        assert torch.equal(image, stage.radiance(0.3, cam))


@pytest.fixture(scope="module")
def day() -> Stage:
    return Stage(light())


@pytest.fixture(scope="module")
def grey_day() -> Stage:
    return Stage(light("overcast"))


def test_the_sun_leaves_a_shadow_behind_a_wall(day: Stage) -> None:
    # The sun stands east, so the shadow of what is 14 m ahead falls towards the ego.
    wall = solids((WALL, (14.0, 3.0, 0.0), (0.4, 4.0, 3.0)))
    shown = Stage(light(), wall)
    assert shown.at(12.5, 3.0) < 0.45 * day.at(12.5, 3.0)
    assert shown.at(9.0, 3.0) == pytest.approx(day.at(9.0, 3.0), rel=0.02)


def test_a_moving_vehicle_takes_its_shadow_along() -> None:
    stage = Stage(light(elevation=30), bodies=solids((BODY, (0, 0, 0.0), (4.4, 1.8, 1.5)), owner=0))
    before, after = stage.at(8.8, 0.0, 0.0), stage.at(8.8, 0.0, 1.5)
    assert before < 0.5 * after


def test_headlights_light_the_road_ahead_and_lamps_below_them(day: Stage) -> None:
    night = light("night")
    dark, lamp = Stage(night), Stage(night, lamps=[(18.0, 4.0, 8.0)])
    assert dark.at(8.0, 0.0) > 5 * dark.at(12.0, 6.0)
    assert lamp.at(18.0, 4.0) > 3 * dark.at(18.0, 4.0)
    behind = dark.radiance(cam=BACK)[60:].mean()
    assert dark.radiance()[60:].mean() > 5 * behind
    by_day = Stage(light(), lamps=[(18.0, 4.0, 8.0)])
    assert by_day.at(18.0, 4.0) == pytest.approx(day.at(18.0, 4.0), rel=1e-5)


def test_signs_shine_in_the_headlights() -> None:
    plates = SolidList()
    for kind, y in ((SIGN, 1.0), (WALL, -1.0)):
        plates.add(kind, (15.0, y, 1.2), (0.05, 1.2, 1.2), (0.6, 0.6, 0.6), yaw=math.pi, seed=3)
    image = Stage(light("night"), plates).radiance()[30:44]
    assert image[:, 60:79].amax() > 1.5 * image[:, 81:100].amax()


def test_brake_lamps_are_lit_while_a_vehicle_waits() -> None:
    body = solids((BODY, (0, 0, 0.2), (4.4, 1.8, 1.2)), owner=0)
    stage = Stage(light("overcast"), bodies=body, speed=0.0)
    waiting = stage.radiance()
    stage.scene.actors[0].motion.speed = lambda time: 5.0
    driving = stage.radiance()
    redder = (waiting - driving)[..., 0]
    assert redder.max() > 0.5
    assert (redder > 0.2).float().mean() < 0.02


def test_a_wet_road_mirrors_a_wall_and_a_dry_one_does_not() -> None:
    wall = SolidList()
    wall.add(WALL, (14.0, 0.0, 0.0), (0.4, 8.0, 5.0), (0.9, 0.1, 0.1))

    def redness(wet: float) -> float:
        image = Stage(light("overcast", wet=wet), wall).radiance()[62:72, 70:90]
        return float((image[..., 0] / image[..., 2]).mean())

    assert redness(1.0) > 1.12 * redness(0.0)


def test_haze_fades_far_objects_to_the_horizon() -> None:
    still = solids((FACADE, (90.0, 0.0, 0.0), (10.0, 40.0, 20.0)))
    clear, hazy = (Stage(light("overcast", haze=haze), still) for haze in (1e5, 40.0))
    horizon = torch.tensor(hazy.scene.light.horizon_colour)
    house = np.s_[30:42, 75:85]
    away = [(stage.radiance()[house].mean(dim=(0, 1)) - horizon).abs().max() for stage in (clear, hazy)]
    assert away[1] < 0.35 * away[0]


def test_sky_is_brightest_at_the_sun_and_pale_at_the_horizon() -> None:
    image = Stage(light(elevation=12)).radiance()
    brightness = image.sum(dim=-1)
    v, u = (brightness > 0.7 * brightness.max()).nonzero().float().mean(dim=0).tolist()
    assert u == pytest.approx(79.5, abs=1)
    assert v == pytest.approx(44.5 - 120 * math.tan(math.radians(12)), abs=1)
    zenith, horizon = image[0, 5], image[40, 5]
    assert zenith[2] / zenith[0] > 1.2 * horizon[2] / horizon[0]


def test_edges_are_softened_but_nothing_else_is() -> None:
    """Beside the border of two solids both pixels are mixed with each other's colour; the next ones are not."""
    still = solids((CROWN, (20.0, 0.0, 0.0), (6.0, 6.0, 6.0)))
    stage = Stage(light("overcast"), still)
    row = stage.traced().row.view(HEIGHT, WIDTH)
    image = stage.radiance()[..., 2]
    line = 30
    left = int((row[line] == 0).nonzero()[0])
    assert row[line, left - 1] == NOTHING
    sky, crown = image[line, left - 4], image[line, left + 4]
    assert crown < image[line, left] < sky
    assert image[line, left - 1] < sky - 0.05 * (sky - crown)
    torch.testing.assert_close(image[line, left - 2], sky, rtol=0.02, atol=0)


def test_a_kerbs_face_shows_stone(grey_day: Stage) -> None:
    side = rigid((0.0, 2.0, 1.5), (0.7071, -0.7071, 0.0, 0.0))
    traced = grey_day.traced(cam=side)
    image = grey_day.shader.compute_radiance(traced, [0.0]).mean(dim=1)
    face, road = (
        (traced.row == KERB),
        (traced.row == GROUND) & (traced.points(torch.arange(len(traced.row)))[:, 1] < 7.5),
    )
    assert face.any()
    # Only half of the sky shines on an upright face.
    assert 0.8 * float(image[road].mean()) < float(image[face].mean()) < 3 * float(image[road].mean())


def test_lidar_returns_are_strong_on_paint_and_weak_on_water() -> None:
    def returns(wet: float) -> tuple[Tensor, Tensor, Tensor, Traced]:
        stage = Stage(light("overcast", wet=wet), solids((SIGN, (15.0, 4.0, 1.2), (0.05, 1.2, 1.2))))
        traced = stage.traced()
        chosen = (traced.row != NOTHING).nonzero()[:, 0]
        reflectivity, normal = stage.shader.look_up_reflectivity(traced, chosen)
        return reflectivity, normal, chosen, traced

    dry, normal, chosen, traced = returns(0.0)
    points = traced.points(chosen)
    on_paint = (points[:, 1] > -2.9) & (points[:, 1] < -2.6) & (points[:, 0] > 5) & (points[:, 0] < 20)
    road = (traced.row[chosen] == GROUND) & (points[:, 1].abs() < 2)
    sign = traced.row[chosen] == 0
    assert dry[on_paint].mean() > 4 * dry[road].mean()
    assert dry[sign].min() > 150
    assert returns(1.0)[0][road].mean() < 0.8 * dry[road].mean()
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(len(chosen)))
    torch.testing.assert_close(normal[road], torch.tensor((0.0, 0.0, 1.0)).expand(int(road.sum()), 3))
    assert ((normal[sign] * traced.direction[chosen][sign]).sum(dim=1) < 0).all()
