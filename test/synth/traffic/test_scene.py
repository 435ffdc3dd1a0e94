"""In scenes no actors overlap, all stand on the ground, and attributes match motions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from shapely.affinity import rotate, translate
from shapely.geometry import Point, box

from bridgeta_synth import nuscenes as facts
from bridgeta_synth.traffic.fleet import EGO_BASE, EGO_SIZE
from bridgeta_synth.traffic.scene import Scene, build_scene
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

_SEED = (7, 0)
_DURATION = 12.0


@pytest.fixture(scope="module", params=[("boston-seaport", True), ("singapore-onenorth", False)], ids=lambda p: p[0])
def town(request: pytest.FixtureRequest) -> Town:
    return build_town(_SEED, 0, *request.param)


@pytest.fixture(scope="module")
def scenes(town: Town) -> list[Scene]:
    return [build_scene(town, _SEED, index, _DURATION) for index in range(6)]


def _rectangles(scene: Scene, time: float) -> list[shapely.Geometry]:
    """Outlines of all actors and, last, of the ego vehicle on the ground."""
    ego = scene.ego_pose(time).copy()
    ego[:3, 3] += 0.5 * EGO_BASE * ego[:3, 0]
    poses = np.concatenate((scene.poses(time), ego[None]))
    shapes = []
    for pose, (width, length, _) in zip(poses, [*(a.size for a in scene.actors), EGO_SIZE], strict=True):
        yaw = np.degrees(np.arctan2(pose[1, 0], pose[0, 0]))
        shape = rotate(box(-length / 2, -width / 2, length / 2, width / 2), yaw, origin=(0, 0))
        shapes.append(translate(shape, pose[0, 3], pose[1, 3]))
    return shapes


def test_nobody_overlaps_anybody_at_any_time(scenes: list[Scene]) -> None:
    for scene in scenes:
        party = np.array([*(a.party for a in scene.actors), -1])
        for time in np.arange(0.0, _DURATION, 0.37):
            shapes = np.array(_rectangles(scene, float(time)))
            one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
            # The sections of a bendy bus, and a truck and its trailer, turn towards each other in bends.
            apart = (one != other) & ((party[one] != party[other]) | (party[one] < 0))
            assert not apart.any(), (scene.index, time, one[apart], other[apart])


def test_scenes_differ_in_how_busy_they_are(scenes: list[Scene]) -> None:
    counts = [len(scene.actors) for scene in scenes]
    assert min(counts) >= 5
    assert max(counts) <= 170
    assert max(counts) > 1.5 * min(counts)


def test_vehicles_stand_on_wheels_and_all_else_upright(scenes: list[Scene]) -> None:
    for scene, time in itertools.product(scenes[:4], (0.0, 5.03, 11.0)):
        town, poses = scene.town, scene.poses(time)
        for actor, pose in zip(scene.actors, poses, strict=True):
            if actor.model.axles is None:
                np.testing.assert_allclose(pose[:3, 2], (0, 0, 1), atol=1e-9)
                # The kerb is a step that is taken within one sample of a motion.
                low = town.terrain.height(pose[:2, 3])
                assert low - 0.01 < pose[2, 3] < low + town.kerb + 0.01
                if actor.is_still:
                    assert pose[2, 3] == pytest.approx(float(town.height(pose[:2, 3])), abs=1e-9)
                continue
            base, track = (s * r for s, r in zip(actor.size[1::-1], actor.model.axles, strict=True))
            wheels = np.array([(i * base / 2, j * track / 2, 0, 1) for i in (1, -1) for j in (1, -1)]) @ pose.T
            above = wheels[:, 2] - town.terrain.height(wheels[:, :2])
            on_kerb = actor.is_still and not shapely.contains_xy(town.paved, *pose[:2, 3])
            assert np.abs(above - town.kerb * on_kerb).max() < 0.03, actor.category


def test_the_ego_vehicle_rolls_and_pitches_with_the_road(scenes: list[Scene]) -> None:
    tilts = []
    for scene, time in itertools.product(scenes, (0.0, 3.3, 9.0)):
        pose = scene.ego_pose(time)
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        rear, front = pose[:3, 3], pose[:3, 3] + EGO_BASE * pose[:3, 0]
        for place in (rear, front):
            assert place[2] == pytest.approx(float(scene.town.terrain.height(place[:2])), abs=0.03)
        tilts.append(np.degrees(np.arccos(pose[2, 2])))
    assert 0.3 < max(tilts) < 6


def test_poses_are_rigid(scenes: list[Scene]) -> None:
    for scene in scenes:
        rotation = scene.poses(2.345)[:, :3, :3]
        identity = np.broadcast_to(np.eye(3), rotation.shape)
        np.testing.assert_allclose(np.einsum("nji,njk->nik", rotation, rotation), identity, atol=1e-12)


def test_attributes_match_the_motions_of_the_poses(scenes: list[Scene]) -> None:
    seen = set()
    for scene, time in itertools.product(scenes, (1.0, 6.0)):
        moved = scene.poses(time + 0.1)[:, :3, 3] - scene.poses(time - 0.1)[:, :3, 3]
        for actor, speed in zip(scene.actors, np.linalg.norm(moved, axis=1) / 0.2, strict=True):
            attribute = actor.attribute(time)
            seen.add(attribute)
            if attribute in ("vehicle.moving", "pedestrian.moving"):
                assert speed > 0.1
            elif attribute in ("vehicle.stopped", "pedestrian.standing"):
                assert speed < 0.7  # braking hard, within the 0.2 s
            elif attribute in ("vehicle.parked", "cycle.without_rider", "pedestrian.sitting_lying_down", None):
                assert actor.is_still or actor.category == "human.pedestrian.stroller"
                assert speed == 0 or not actor.is_still
    assert {"vehicle.moving", "vehicle.stopped", "vehicle.parked", "pedestrian.moving", "pedestrian.standing"} <= seen


def test_the_ego_vehicle_starts_in_town_and_drives_moderately(scenes: list[Scene]) -> None:
    times = np.arange(0.0, _DURATION, 0.1)
    for scene in scenes:
        speed = np.array([scene.ego.speed(t) for t in times])
        assert speed.max() <= 14.0
        assert np.abs(np.diff(speed) / 0.1).max() < 7.5
        x, y, _ = scene.ego.at(np.array([0.0]))
        assert scene.town.interior.buffer(30).contains(Point(x[0], y[0]))
    assert sum(scene.ego.speed(1.0) > 2 for scene in scenes) >= 2


def test_traffic_keeps_to_the_paved_ground(scenes: list[Scene]) -> None:
    outside = total = 0
    for scene in scenes:
        paved = scene.town.paved.buffer(0.4)
        shapely.prepare(paved)
        for actor, shape in zip(scene.actors, _rectangles(scene, 4.0), strict=False):
            if actor.category.startswith("vehicle") and not actor.is_still:
                total += 1
                outside += not paved.contains(shape)
    assert total > 20
    assert outside < 0.05 * total


def test_observed_poses_are_those_when_the_sweep_passes(scenes: list[Scene]) -> None:
    scene = scenes[1]
    time = 4.0
    ego, observed = scene.ego_pose(time), scene.observed_poses(time)
    local = (observed[:, :3, 3] - ego[:3, 3]) @ ego[:3, :3] - np.array(facts.LIDAR_TRANSLATION)
    delay = facts.sweep_delay(np.arctan2(local[:, 1], local[:, 0]))
    assert (delay <= 0).all()
    assert (delay >= -0.05).all()
    expected = scene.poses(time + delay)
    # Who stands on the sweep's seam may be seen at its begin or at its end.
    settled = (delay > -0.0499) & (delay < -0.0001)
    np.testing.assert_allclose(observed[settled], expected[settled], atol=2e-3)
    still = np.array([a.is_still for a in scene.actors])
    np.testing.assert_array_equal(observed[still], scene.poses(time)[still])


def test_descriptions_name_night_and_rain(town: Town) -> None:
    for weather in ("night", "rain", "clear"):
        scene = build_scene(town, _SEED, 3, 2.0, weather)
        text = scene.describe().lower()
        for word in ("night", "rain"):
            assert (word in text) == (word in scene.light.keywords())
        assert weather == "clear" or weather in text
        assert set(scene.looks) == {camera.channel for camera in facts.CAMERAS}


def test_equal_arguments_give_an_equal_scene(town: Town, scenes: list[Scene]) -> None:
    again = build_scene(town, _SEED, 2, _DURATION)
    assert again.light == scenes[2].light
    assert again.describe() == scenes[2].describe()
    np.testing.assert_array_equal(again.poses(3.21), scenes[2].poses(3.21))
    np.testing.assert_array_equal(again.ego_pose(3.21), scenes[2].ego_pose(3.21))
    for name in ("x", "front", "colour", "kind", "owner"):
        np.testing.assert_array_equal(getattr(again.bodies, name), getattr(scenes[2].bodies, name))
    assert not np.allclose(scenes[3].ego_pose(0.0), scenes[2].ego_pose(0.0))


def test_a_scene_of_a_single_keyframe_can_be_built(town: Town) -> None:
    scene = build_scene(town, _SEED, 0, 0.0)
    assert scene.poses(0.0).shape == (len(scene.actors), 4, 4)
    assert scene.describe()
