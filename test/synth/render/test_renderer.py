"""Cameras and LiDAR see one world: depths, times and materials agree."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray

from bridgeta_core.geometry.transforms import Matrix, invert, project, rigid, transform
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.render.renderer import CameraView, SceneRenderer
from bridgeta_synth.traffic.scene import Scene, build_scene
from bridgeta_synth.world import materials
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

CPU = torch.device("cpu")
SEED = (7, 0)
WIDTH, HEIGHT = 800, 450
TIME = 0.7
EGO_T_LIDAR = rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(SEED, 0, "boston-seaport", True)


@pytest.fixture(scope="module")
def scene(town: Town) -> Scene:
    return next(s for s in (build_scene(town, SEED, i, 1.5, "clear") for i in range(20)) if s.ego.speed(TIME) > 4)


@pytest.fixture(scope="module")
def renderer(scene: Scene) -> SceneRenderer:
    return SceneRenderer(scene, SEED, WIDTH, HEIGHT, CPU)


@pytest.fixture(scope="module")
def sweep(renderer: SceneRenderer) -> NDArray[np.float32]:
    return renderer.render_sweep(TIME)


@pytest.fixture(scope="module")
def views(renderer: SceneRenderer) -> dict[str, CameraView]:
    """Render every camera when the sweep passes the centre of its view, as in nuScenes."""
    shots = [(camera, TIME + camera.offset_us / 1e6) for camera in facts.CAMERAS]
    return dict(zip(facts.CAMERA_OF, renderer.render_cameras(shots), strict=True))


def _global_T_lidar(scene: Scene, time: float) -> Matrix:
    return scene.ego_pose(time) @ EGO_T_LIDAR


@pytest.mark.parametrize("camera", facts.CAMERAS, ids=lambda c: c.channel)
def test_lidar_points_lie_on_the_surfaces_in_the_images(
    scene: Scene, sweep: NDArray[np.float32], views: dict[str, CameraView], camera: facts.CameraFacts
) -> None:
    """Depths agree within 5 cm for 99 % of the points away from edges.

    Inverse depth is linear across the image of a plane, so it is interpolated and tested for edges there. The LiDAR,
    30 cm above the cameras, sees past the edges of what is near: such points are behind, never before, the image's
    surface, and few.
    """
    depth_image = views[camera.channel].depth
    global_T_cam = scene.ego_pose(TIME + camera.offset_us / 1e6) @ camera.ego_T_cam
    cam_T_lidar = invert(global_T_cam) @ _global_T_lidar(scene, TIME)
    pixels, depth = project(camera.intrinsics(WIDTH, HEIGHT), transform(cam_T_lidar, sweep[:, :3]))
    inside = (depth > 1) & ((pixels >= 1) & (pixels < (WIDTH - 3, HEIGHT - 3))).all(axis=1)
    pixels, depth = pixels[inside], depth[inside]
    inverse = np.where(np.isfinite(depth_image), 1 / depth_image, 0).astype(np.float64)
    column, row = np.floor(pixels).astype(int).T
    corner = {(i, j): inverse[row + j, column + i] for i in (0, 1) for j in (0, 1)}
    bend = np.abs(corner[0, 0] + corner[1, 1] - corner[0, 1] - corner[1, 0])
    wide = np.abs(inverse[row, column + 2] - 2 * inverse[row, column + 1] + inverse[row, column])
    wide += np.abs(inverse[row + 2, column] - 2 * inverse[row + 1, column] + inverse[row, column])
    smooth = (bend + wide < 1e-3 * corner[0, 0]) & (corner[0, 0] > 0)
    s, t = (pixels - np.floor(pixels)).T
    low = (1 - s) * corner[0, 0] + s * corner[1, 0]
    high = (1 - s) * corner[0, 1] + s * corner[1, 1]
    difference = depth[smooth] - 1 / ((1 - t) * low + t * high)[smooth]
    assert smooth.sum() > 1000
    hidden = difference > 0.3
    assert hidden.mean() < 0.15
    assert (np.abs(difference[~hidden]) < 0.05).mean() > 0.99


def test_a_sweep_has_the_beams_of_the_sensor(sweep: NDArray[np.float32]) -> None:
    assert 15_000 < len(sweep) <= 32 * facts.LIDAR_AZIMUTHS
    assert set(np.unique(sweep[:, 4])) <= set(range(32))
    assert sweep[:, 3].min() >= 0
    assert sweep[:, 3].max() <= 255
    distance = np.linalg.norm(sweep[:, :3], axis=1)
    assert distance.min() > facts.LIDAR_RANGE[0] - 0.6  # the ego has driven on by up to 50 ms
    # The elevations in the frame of the stamp are the beams' own but for that motion.
    elevation = np.arctan2(sweep[:, 2], np.hypot(sweep[:, 0], sweep[:, 1]))
    far = distance > 15
    np.testing.assert_allclose(elevation[far], facts.LIDAR_ELEVATIONS[sweep[far, 4].astype(int)], atol=0.012)
    # All around.
    turn = np.arctan2(sweep[:, 1], sweep[:, 0])
    assert np.histogram(turn, 36, (-np.pi, np.pi))[0].min() > 100


def test_ego_motion_within_a_sweep_is_undone(scene: Scene, renderer: SceneRenderer, sweep: NDArray[np.float32]) -> None:
    """Points of the ground lie on it by the pose of the stamp, also those of beams that passed 50 ms before."""
    assert np.linalg.norm(scene.ego_pose(TIME)[:2, 3] - scene.ego_pose(TIME - 0.05)[:2, 3]) > 0.2
    world = transform(_global_T_lidar(scene, TIME), sweep[:, :3])
    x, y = torch.from_numpy(world[:, :2].astype(np.float32)).unbind(1)
    over = world[:, 2] - renderer.ground_shape.height(x, y).numpy()
    on_ground = np.abs(over) < 0.1
    assert on_ground.sum() > 5000
    ahead = sweep[on_ground] @ np.array([0, 1, 0, 0, 0])  # the sensor's y axis is the vehicle's x axis
    for part in (ahead > 4, ahead < -4):
        assert np.abs(np.median(over[on_ground][part])) < 0.01


def test_paint_returns_more_than_asphalt_and_wet_asphalt_less(town: Town, scene: Scene) -> None:
    dry, wet = (build_scene(town, SEED, scene.index, 0.5, weather) for weather in ("clear", "rain"))
    sweeps = {s.light.rain > 0: SceneRenderer(s, SEED, 160, 90, CPU).render_sweep(0.2) for s in (dry, wet)}
    on_ground = [((s[:, 2] < -1.3) & (np.hypot(s[:, 0], s[:, 1]) > 10)).sum() for s in (sweeps[False], sweeps[True])]
    assert on_ground[1] < 0.8 * on_ground[0]
    world = transform(_global_T_lidar(dry, 0.2), sweeps[False][:, :3])
    near = (np.hypot(sweeps[False][:, 0], sweeps[False][:, 1]) < 15) & (sweeps[False][:, 2] < -1.5)
    around = shapely.Point(dry.ego_pose(0.2)[:2, 3]).buffer(20)
    marks = [polygon for material, polygon in town.surface if material in (materials.WHITE, materials.YELLOW)]
    marks, lanes = ([p for p in polygons if p.intersects(around)] for polygons in (marks, town.polygons["lane"]))
    areas = [shapely.union_all(marks).buffer(-0.03), shapely.union_all(lanes)]
    shapely.prepare(areas)
    paint = shapely.contains_xy(areas[0], world[:, :2]) & near
    asphalt = shapely.contains_xy(areas[1], world[:, :2]) & near & ~paint
    assert paint.sum() > 20
    assert asphalt.sum() > 500
    assert np.median(sweeps[False][paint, 3]) > 2 * np.median(sweeps[False][asphalt, 3])


def test_occlusion_lowers_the_visibility_of_actors(views: dict[str, CameraView]) -> None:
    visible = np.sum([v.visible for v in views.values()], axis=0)
    whole = np.sum([v.unoccluded for v in views.values()], axis=0)
    assert (visible <= whole).all()
    assert whole.sum() > 0
    assert (visible[whole > 0] < whole[whole > 0]).any()


def test_images_and_sweeps_do_not_depend_on_their_order(scene: Scene, renderer: SceneRenderer) -> None:
    again = SceneRenderer(scene, SEED, WIDTH, HEIGHT, CPU)
    camera = facts.CAMERAS[3]
    alone = again.render_cameras([(camera, 0.5)])[0].image
    among = renderer.render_cameras([(facts.CAMERAS[0], 0.5), (camera, 0.5)])[1].image
    np.testing.assert_array_equal(alone, among)
    np.testing.assert_array_equal(again.render_sweep(0.5), renderer.render_sweep(0.5))
