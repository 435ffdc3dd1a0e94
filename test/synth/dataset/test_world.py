"""The world: its cities, its cache, and paint in images that agrees with the map."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shapely.geometry import LineString

from bridgeta_core.data.maps.expansion import read_layers
from bridgeta_core.geometry.transforms import Matrix, invert, project, transform
from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.map_expansion import build_expansion
from bridgeta_synth.dataset.world import LruCache, World
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.traffic.scene import Scene
from bridgeta_synth.world.solids import SolidList

SETTINGS = SynthSettings(scenes=1, seed=7, weather="clear", duration=0.0, image_scale=0.5)
LATERAL = np.linspace(-0.9, 0.9, 73)
WIDTH, HEIGHT = SETTINGS.image_size
CAMERAS = [c for c in facts.CAMERAS if c.channel in ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")]


@pytest.fixture(scope="module")
def world() -> World:
    return World(SETTINGS)


@pytest.fixture(scope="module")
def lines(world: World) -> list[LineString]:
    """Return the dividers that the written map would have."""
    layers = read_layers(build_expansion(world.town(0), SETTINGS.seeds), ("road_divider", "lane_divider"))
    return [line for shapes in layers.values() for line in shapes]


@pytest.fixture(scope="module")
def streets(world: World, lines: list[LineString]) -> list[Scene]:
    """Find two empty streets in which the vehicle stands beside one of the longest dividers."""
    scene = world.make_scene(0)
    result: list[Scene] = []
    for line in sorted(lines, key=lambda line: -line.length):
        at, ahead = (np.array(line.interpolate(0.5 * line.length + d).coords[0][:2]) for d in (0.0, 1.0))
        yaw = float(np.arctan2(*(ahead - at)[::-1]))
        place = at + 1.7 * np.array((np.sin(yaw), -np.cos(yaw)))
        if all(np.hypot(place[0] - s.ego.x[0], place[1] - s.ego.y[0]) > 60 for s in result):
            ego = Motion.still(place[0], place[1], yaw + 0.15)
            result.append(replace(scene, ego=ego, actors=(), bodies=SolidList().build()))
        if len(result) == 2:
            break
    return result


def test_painted_dividers_lie_on_the_projected_map_lines(
    world: World, lines: list[LineString], streets: list[Scene]
) -> None:
    """Profiles across the map's dividers peak where the map says: within two pixels for 95 %, at 800x450."""
    errors = []
    for scene in streets:
        renderer = world.make_renderer(scene, torch.device("cpu"))
        for camera in CAMERAS:
            image = renderer.render_cameras([(camera, 0.0)])[0].image.astype(np.float32).mean(axis=2)
            cam_T_global = invert(scene.ego_pose(0.0) @ camera.ego_T_cam)
            for line in lines:
                errors += line_errors(world, line, image, cam_T_global, camera)
    assert len(errors) > 20
    assert np.median(errors) < 0.7
    assert np.quantile(errors, 0.95) < 2.0


def line_errors(
    world: World, line: LineString, image: NDArray[np.float32], cam_T_global: Matrix, camera: facts.CameraFacts
) -> list[float]:
    """Measure by how many pixels the paint is off a map line, where the line is near enough to see the paint well."""
    along = np.arange(0.5, max(line.length - 0.5, 0.6), 0.35)
    at, ahead = (np.array([line.interpolate(s + d).coords[0][:2] for s in along]) for d in (0.0, 0.3))
    heading = (ahead - at) / np.linalg.norm(ahead - at, axis=1, keepdims=True)
    normal = np.stack((-heading[:, 1], heading[:, 0]), axis=1)
    across = at[:, None] + LATERAL[None, :, None] * normal[:, None]
    ground = np.concatenate((across, world.town(0).terrain.height(across)[..., None]), axis=-1)
    pixels, depth = project(camera.intrinsics(WIDTH, HEIGHT), transform(cam_T_global, ground))
    inside = (depth > 3).all(axis=1) & (depth < 14).all(axis=1)
    inside &= ((pixels > 1) & (pixels < (WIDTH - 2, HEIGHT - 2))).all(axis=(1, 2))
    found = (paint_error(image, profile) for profile in pixels[inside])
    return [error for error in found if error is not None]


def paint_error(image: NDArray[np.float32], pixels: Floats) -> float | None:
    """Measure by how many pixels a bright stripe, or a pair, is off the centre of a profile `[73, 2]` of pixels.

    Returns None where no such stripe is visible.
    """
    profile = cv2.remap(image, pixels[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]
    strength = np.clip(profile - np.median(profile) - 25, 0, None)
    per_metre = float(np.linalg.norm(pixels[-1] - pixels[0]) / 1.8)
    if strength.max() < 40 or per_metre < 16 or max(strength[:9].max(), strength[-9:].max()) > 5:
        return None
    bright = np.flatnonzero(strength > strength.max() / 2)
    stripes = np.split(bright, np.flatnonzero(np.diff(bright) > 1) + 1)
    if len(stripes) > 2 or max(np.ptp(LATERAL[stripe]) for stripe in stripes) > 0.3:
        return None
    return abs(float(np.mean([LATERAL[stripe].mean() for stripe in stripes]))) * per_metre


def maps(root: Path, *cities: str) -> Path:
    folder = root / "maps" / "expansion"
    folder.mkdir(parents=True)
    for city in cities:
        (folder / f"{city}.json").write_text(json.dumps({}))
    return root


def test_cities_come_from_the_folder_of_maps_in_nuscenes_order(tmp_path: Path) -> None:
    root = maps(tmp_path, "singapore-queenstown", "boston-seaport", "singapore-onenorth")
    assert World(SynthSettings(scenes=2, maps=str(root))).locations == ("boston-seaport", "singapore-onenorth")
    three = ("boston-seaport", "singapore-onenorth", "singapore-queenstown")
    assert World(SynthSettings(scenes=9, maps=str(root))).locations == three


@pytest.mark.parametrize(
    ("cities", "says"), [(("gotham",), "gotham is no city"), ((), "holds no map"), (None, "no such folder")]
)
def test_maps_of_unknown_cities_are_refused(tmp_path: Path, cities: tuple[str, ...] | None, says: str) -> None:
    root = tmp_path if cities is None else maps(tmp_path, *cities)
    with pytest.raises(BridgeTAError, match=says) as caught:
        World(SynthSettings(scenes=1, maps=str(root)))
    assert caught.value.exit_code == 2
    assert "boston-seaport" in str(caught.value)


BUILT: list[int] = []


def build_square(number: int) -> int:
    BUILT.append(number)
    return number * number


def test_the_cache_holds_recent_values_and_pickles_empty() -> None:
    BUILT.clear()
    squares = LruCache(build_square, 2)
    assert [squares(n) for n in (3, 4, 3, 5, 3, 4)] == [9, 16, 9, 25, 9, 16]
    assert BUILT == [3, 4, 5, 4]
    assert pickle.loads(pickle.dumps(squares))(4) == 16
    assert BUILT == [3, 4, 5, 4, 4]
