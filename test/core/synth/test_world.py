"""The world behind the files: roads, rays, and agreement of LiDAR and cameras."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry import invert, project, rigid, transform
from bridgeta_core.synth import nuscenes_facts as facts
from bridgeta_core.synth.cast import GROUND, NOTHING, SolidTensors, camera_rectangles, cast
from bridgeta_core.synth.ground import Ground
from bridgeta_core.synth.mapfile import class_shares
from bridgeta_core.synth.render import SceneRenderer
from bridgeta_core.synth.roads import arc_length, hermite
from bridgeta_core.synth.scene import Scene, build_scene
from bridgeta_core.synth.solids import BODY, SolidList
from bridgeta_core.synth.town import Town, build_town

CPU = torch.device("cpu")
_GROUND = Ground([], [], np.zeros((1, 2)), 0, CPU, reach=80.0)


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(7, 0, "boston-seaport", True)


@pytest.fixture(scope="module")
def scene(town: Town) -> Scene:
    return build_scene(town, 7, 1, 2.0)


@pytest.fixture(scope="module")
def renderer(scene: Scene) -> SceneRenderer:
    return SceneRenderer(scene, 7, 800, 450, CPU)


@given(st.floats(10, 40), st.floats(0.2, 1.5))
@settings(max_examples=25, deadline=None)
def test_a_path_across_a_junction_leaves_and_arrives_with_the_given_headings(chord: float, turn: float) -> None:
    ahead = np.array([1.0, 0.0])
    out = np.array([math.cos(turn), math.sin(turn)])
    path = hermite(np.zeros(2), ahead, chord * np.array([math.cos(turn / 2), math.sin(turn / 2)]), out)
    first, last = path[1] - path[0], path[-1] - path[-2]
    assert first @ ahead / np.linalg.norm(first) > 0.999
    assert last @ out / np.linalg.norm(last) > 0.999
    # A circular arc of that chord and turn.
    assert arc_length(path)[-1] == pytest.approx(chord * (turn / 2) / math.sin(turn / 2), rel=0.02)


def test_all_junctions_have_three_or_four_arms_and_traffic_keeps_to_its_side(town: Town) -> None:
    assert {len(arms) for arms in town.network.arms.values()} <= {3, 4}
    left = build_town(7, 1, "singapore-onenorth", False)
    for network, sign in ((town.network, 1), (left.network, -1)):
        road = network.roads[0]
        lane, centre = road.lane(True, 0), road.centre
        heading = centre[20] - centre[18]
        nearest = lane[np.argmin(np.linalg.norm(lane - centre[19], axis=1))] - centre[19]
        assert sign * (heading[0] * nearest[1] - heading[1] * nearest[0]) < 0


def test_classes_are_about_as_frequent_as_in_nuscenes(town: Town) -> None:
    middle = np.array([road.centre[len(road.centre) // 2] for road in town.network.roads])
    shares = class_shares(town, middle).mean(axis=0)
    lower = (0.12, 0.005, 0.04, 0.003, 0.003, 0.02)
    upper = (0.50, 0.04, 0.20, 0.02, 0.08, 0.10)
    assert (shares > lower).all(), shares
    assert (shares < upper).all(), shares


def test_a_map_of_the_same_seed_is_the_same_and_of_another_is_not(town: Town) -> None:
    again, other = build_town(7, 0, "boston-seaport", True), build_town(8, 0, "boston-seaport", True)
    assert all(a.equals_exact(b, 0) for a, b in zip(town.polygons["walkway"], again.polygons["walkway"], strict=True))
    assert town.canvas != other.canvas or len(town.solids) != len(other.solids)


@given(
    yaw=st.floats(-3.1, 3.1),
    distance=st.floats(6, 40),
    size=st.tuples(st.floats(1, 5), st.floats(1, 5), st.floats(2, 5)),
    lean=st.floats(0.0, 0.3),
    is_round=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_rays_meet_solids_on_their_surface_and_nowhere_before(
    yaw: float, distance: float, size: tuple[float, float, float], lean: float, is_round: bool
) -> None:
    solids = SolidList()
    solids.add(BODY, (distance, 0.3, 0.0), size, (1, 1, 1), yaw=yaw, lean=(lean, lean / 2, lean / 3), is_round=is_round)
    built = solids.build()
    cam = rigid((0, 0, 1.5), (0.5, -0.5, 0.5, -0.5))
    intrinsics = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1]])
    u, v = np.meshgrid(np.arange(80), np.arange(60))
    rays = np.stack((u, v, np.ones_like(u)), axis=-1).reshape(-1, 3) @ np.linalg.inv(intrinsics).T @ cam[:3, :3].T
    directions = torch.from_numpy(rays.astype(np.float32))
    tensors = SolidTensors(built, cam[:3, 3], CPU)
    origin = torch.tensor([0.0, 0.0, 1.5])
    everywhere = np.array([[0, 80, 0, 60]])
    hits = cast(_GROUND, tensors, origin, directions, 80, everywhere, np.zeros(1, dtype=np.int64))
    culled = cast(
        _GROUND,
        tensors,
        origin,
        directions,
        80,
        camera_rectangles(built, invert(cam), intrinsics, 80, 60),
        np.zeros(1, int),
    )
    assert torch.equal(hits.solid, culled.solid)
    met = (hits.solid == 0).numpy()
    local = transform(
        invert(rigid((distance, 0.3, 0), (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)))),
        np.array([0, 0, 1.5]) + rays[met] * hits.distance.numpy()[met, None],
    )
    x, y, z = local.T
    length, width, height = size
    if is_round:
        level = (x / (length / 2)) ** 2 + (y / (width / 2)) ** 2 + ((z - height / 2) / (height / 2)) ** 2
        np.testing.assert_allclose(level, 1, atol=5e-3)
    else:
        gaps = (
            length / 2 - x - lean * z,
            length / 2 + x - lean / 2 * z,
            width / 2 - np.abs(y) - lean / 3 * z,
            height - z,
            z,
        )
        np.testing.assert_allclose(np.min(gaps, axis=0), 0, atol=5e-3)
    assert (hits.distance[hits.solid == NOTHING] == math.inf).all()
    on_ground = (hits.solid == GROUND).numpy()
    assert np.allclose(1.5 + rays[on_ground, 2] * hits.distance.numpy()[on_ground], 0, atol=1e-3)


@pytest.mark.parametrize("camera", facts.CAMERAS, ids=lambda c: c.channel)
def test_lidar_points_lie_on_the_surfaces_that_the_images_show(
    renderer: SceneRenderer, camera: facts.CameraFacts
) -> None:
    """Depths agree within 5 cm for 99 % of the points away from edges.

    Inverse depth is linear across the image of a plane, so it is interpolated and tested for edges there. The LiDAR,
    30 cm above the cameras, sees past the edges of what is near: such points are behind, never before, the image's
    surface, and few.
    """
    view = renderer.camera(camera, 0.7)
    points = renderer.lidar(0.7, 1)[:, :3]
    cam_T_lidar = invert(camera.ego_T_cam) @ rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
    pixels, depth = project(camera.intrinsics(800, 450), transform(cam_T_lidar, points))
    inside = (depth > 1) & ((pixels >= 1) & (pixels < (797, 447))).all(axis=1)
    pixels, depth = pixels[inside], depth[inside]
    inverse = np.where(np.isfinite(view.depth), 1 / view.depth, 0).astype(np.float64)
    column, row = np.floor(pixels).astype(int).T
    corner = {(i, j): inverse[row + j, column + i] for i in (0, 1) for j in (0, 1)}
    bend = np.abs(corner[0, 0] + corner[1, 1] - corner[0, 1] - corner[1, 0])
    wide = np.abs(inverse[row, column + 2] - 2 * inverse[row, column + 1] + inverse[row, column])
    wide += np.abs(inverse[row + 2, column] - 2 * inverse[row + 1, column] + inverse[row, column])
    smooth = (bend + wide < 1e-3 * corner[0, 0]) & (corner[0, 0] > 0)
    s, t = (pixels - np.floor(pixels)).T
    shown = (
        1
        / (
            (1 - s) * (1 - t) * corner[0, 0]
            + s * (1 - t) * corner[1, 0]
            + (1 - s) * t * corner[0, 1]
            + s * t * corner[1, 1]
        )[smooth]
    )
    difference = depth[smooth] - shown
    assert smooth.sum() > 1000
    hidden = difference > 0.3
    assert hidden.mean() < 0.08
    assert (np.abs(difference[~hidden]) < 0.05).mean() > 0.99


def test_what_stands_before_an_actor_lowers_its_visibility(renderer: SceneRenderer) -> None:
    views = [renderer.camera(camera, 0.0) for camera in facts.CAMERAS]
    visible = np.sum([v.visible for v in views], axis=0)
    whole = np.sum([v.unoccluded for v in views], axis=0)
    assert (visible <= whole).all()
    assert whole.sum() > 0
    assert (visible[whole > 0] < whole[whole > 0]).any()


def test_the_ego_and_traffic_do_not_run_into_each_other(scene: Scene) -> None:
    for time in np.arange(0, 2.1, 0.5):
        x, y, _ = scene.poses(float(time))
        ego = scene.ego_pose(float(time))
        middle = ego[:2, 3] + 1.3 * ego[:2, 0]
        assert np.hypot(x - middle[0], y - middle[1]).min() > 2.0
