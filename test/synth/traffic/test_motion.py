"""Motions follow their paths, and poses are interpolated between samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_synth.traffic.motion import LEAD, STEP, Motion, Tracks, sample_times
from bridgeta_synth.world.terrain import Terrain

_TIMES = sample_times(4.0)


def _circle(radius: float) -> np.ndarray:
    angle = np.linspace(0, 4 * np.pi, 8000)
    return radius * np.stack((np.cos(angle), np.sin(angle)), axis=1)


@given(radius=st.floats(8, 60), speed=st.floats(0.5, 12), base=st.floats(0.5, 6))
@settings(max_examples=30)
def test_both_axles_follow_the_path_at_the_speed_of_travel(radius: float, speed: float, base: float) -> None:
    distance = 10 + speed * (_TIMES - _TIMES[0])
    motion = Motion.along(_circle(radius), distance, base)
    ahead = np.stack((np.cos(motion.yaw), np.sin(motion.yaw)), axis=1)
    middle = np.stack((motion.x, motion.y), axis=1)
    # Closed form: the chord of an arc `base` long is 2 r sin(base / 2 r), and its middle lies r cos(base / 2 r) out.
    chord = 2 * radius * math.sin(base / 2 / radius)
    for axle in (middle + 0.5 * chord * ahead, middle - 0.5 * chord * ahead):
        np.testing.assert_allclose(np.linalg.norm(axle, axis=1), radius, rtol=1e-4)
    angle = distance / radius
    np.testing.assert_allclose(motion.yaw - motion.yaw[0], angle - angle[0], atol=2e-3)
    expected = speed * math.cos(base / 2 / radius)
    assert motion.speed(2.0) == pytest.approx(expected, rel=0.01)


def test_a_path_is_extended_straight_beyond_its_ends() -> None:
    path = np.array([[0.0, 0.0], [10.0, 0.0]])
    motion = Motion.along(path, np.array([-3.0, 5.0, 14.0]), 2.0, lateral=0.5)
    np.testing.assert_allclose(motion.x, (-3, 5, 14), atol=1e-12)
    np.testing.assert_allclose(motion.y, 0.5, atol=1e-12)
    np.testing.assert_allclose(motion.yaw, 0, atol=1e-12)


def test_a_motion_at_rest_stays_in_its_place() -> None:
    still = Motion.still(3.0, 4.0, 0.5)
    assert still.is_still
    assert still.speed(1.0) == 0
    for values, expected in zip(still.at(np.array([-1.0, 0.0, 9.0])), (3.0, 4.0, 0.5), strict=True):
        np.testing.assert_array_equal(values, expected)
    assert still.sampled(7).shape == (3, 7)


def _tracks(seed: int) -> tuple[Tracks, np.ndarray]:
    rng = np.random.default_rng(seed)
    terrain = Terrain.draw(rng, (100.0, 100.0))
    paths = [rng.uniform(10, 90, (2, 2)) for _ in range(5)]
    motions = [Motion.along(p, rng.uniform(1, 12) * (_TIMES - _TIMES[0]), 2.6) for p in paths]
    x, y, yaw = np.stack([m.sampled(len(_TIMES)) for m in motions], axis=1)
    poses = terrain.pose(x, y, yaw)
    return Tracks(poses), poses


@given(seed=st.integers(0, 50), time=st.floats(-LEAD, 4 + LEAD))
@settings(max_examples=20)
def test_poses_between_samples_are_rigid_and_between_them(seed: int, time: float) -> None:
    tracks, samples = _tracks(seed)
    poses = tracks.poses(time)
    rotation = poses[:, :3, :3]
    identity = np.broadcast_to(np.eye(3), rotation.shape)
    np.testing.assert_allclose(np.einsum("nji,njk->nik", rotation, rotation), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
    np.testing.assert_array_equal(poses[:, 3], np.tile((0, 0, 0, 1), (5, 1)))
    index = int(np.clip((time + LEAD) / STEP, 0, len(_TIMES) - 2))
    low, high = samples[:, index], samples[:, index + 1]
    between = np.linalg.norm(high - low, axis=(1, 2))
    assert (np.linalg.norm(poses - low, axis=(1, 2)) <= between + 1e-3).all()


def test_poses_equal_the_samples_at_their_times() -> None:
    tracks, samples = _tracks(1)
    np.testing.assert_allclose(tracks.poses(float(_TIMES[30])), samples[:, 30], atol=1e-9)
    times = np.array([0.0, 1.0, 2.0, 3.0, 3.21])
    mixed = tracks.poses(times)
    for actor, time in enumerate(times):
        np.testing.assert_array_equal(mixed[actor], tracks.poses(float(time))[actor])


def test_times_beyond_the_samples_give_the_end_poses() -> None:
    tracks, samples = _tracks(2)
    np.testing.assert_allclose(tracks.poses(-100.0), samples[:, 0], atol=1e-12)
    np.testing.assert_allclose(tracks.poses(100.0), samples[:, -1], atol=1e-12)
