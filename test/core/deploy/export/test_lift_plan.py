"""The plan of the lift in NumPy: it equals the plan of the training, and its padded form loses nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.deploy.export.folder import describe_lift
from bridgeta_core.deploy.export.vehicle import lift_plan
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import ImageFit, rigid
from bridgeta_core.model.lift import LiftPlan, lift

IMAGE, FEATURES, CHANNELS = (48, 32), (4, 6), 3  # (width, height), (height, width)
CONFIG = LiftConfig(
    depth_min=1.0,
    depth_max=25.0,
    depth_step=1.5,
    channels=CHANNELS,
    grid=BevGrid(-12, 20, -9, 9, 1.0),
    z_min=-3,
    z_max=2,
)


def describe(config: LiftConfig) -> dict[str, Any]:
    image = {"width": IMAGE[0], "height": IMAGE[1], "margin": 1.25}
    return {"image": image, "features": list(FEATURES), "lift": describe_lift(config)}


def random_cameras(seed: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cameras that look anywhere, also up, from anywhere near the grid, also below the ground and beside the grid."""
    rng = np.random.default_rng(seed)
    k = np.tile(np.eye(3), (count, 1, 1))
    k[:, 0, 0], k[:, 1, 1] = rng.uniform(10, 200, (2, count))
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 2] = (
        rng.uniform(-5, 5, count),
        rng.uniform(0, 48, count),
        rng.uniform(-20, 60, count),
    )
    poses = [rigid(rng.uniform((-30, -30, -2), (30, 30, 4)), rng.standard_normal(4)) for _ in range(count)]
    return k, np.array(poses)


def build(k: NDArray[np.float64], poses: NDArray[np.float64], config: LiftConfig) -> LiftPlan:
    tensors = (torch.from_numpy(x)[None] for x in (k, poses))
    return LiftPlan.build(*tensors, FEATURES, (IMAGE[1], IMAGE[0]), config)


def sum_padded(values: NDArray[Any], indices: NDArray[np.int32]) -> NDArray[Any]:
    """What the graph does with indices: gather, with a zero behind the last, and add up."""
    return np.concatenate([values, np.zeros_like(values[:1])])[indices].sum(axis=1)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 7), as_bevfusion=st.booleans())
def test_any_rig_is_planned_as_in_training(seed: int, count: int, as_bevfusion: bool) -> None:
    k, poses = random_cameras(seed, count)
    places = {"depth_place": "near", "pixel_place": "spread", "edge": "widen"} if as_bevfusion else {}
    config = replace(CONFIG, **places)
    expected = build(k, poses, config)
    ground, start, source = lift_plan.plan_lift(k, poses, describe(config))
    np.testing.assert_array_equal(start, expected.gather.crow)
    np.testing.assert_array_equal(source, expected.gather.source)
    np.testing.assert_allclose(ground, expected.ground[0], rtol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 7))
def test_features_are_lifted_as_in_training(seed: int, count: int) -> None:
    k, poses = random_cameras(seed, count)
    rng = np.random.default_rng(seed)
    plan = build(k, poses, CONFIG)
    depth = rng.random((count, *FEATURES, plan.bins), dtype=np.float32)
    features = rng.standard_normal((count, *FEATURES, CHANNELS), dtype=np.float32)
    volumes = (torch.from_numpy(x).permute(0, 3, 1, 2)[None] for x in (depth, features))
    expected = lift(*volumes, plan)[0].permute(1, 2, 0).reshape(-1, CHANNELS)
    _, start, source = lift_plan.plan_lift(k, poses, describe(CONFIG))
    np.testing.assert_allclose(lift_plan.lift_features(depth, features, start, source), expected, atol=1e-4)


@given(counts=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 3000)), min_size=1, max_size=12))
def test_padding_adds_up_every_entry_of_a_cell_once(counts: list[int]) -> None:
    start = np.concatenate([[0], np.cumsum(counts)])
    source = np.random.default_rng(0).permutation(start[-1] + 5)[: start[-1]]
    values = np.random.default_rng(1).integers(1, 1000, start[-1] + 5)
    padded = lift_plan.pad_lift(start, source, len(values))
    total = values
    for name in ("entries", "parts", "sums"):
        total = sum_padded(total, padded[name])
    np.testing.assert_array_equal(total, [values[source[a:b]].sum() for a, b in itertools.pairwise(start)])


def test_one_crowded_cell_does_not_pad_the_others() -> None:
    start = np.concatenate([[0], np.cumsum([5000] + [10] * 4000)])
    padded = lift_plan.pad_lift(start, np.arange(start[-1]), start[-1])
    assert sum(indices.size for indices in padded.values()) < 8 * start[-1]


def test_cameras_that_see_nothing_of_the_grid_lift_zeros() -> None:
    k, poses = random_cameras(0, 2)
    poses[:, :3, 3] = 1000.0
    _, start, source = lift_plan.plan_lift(k, poses, describe(CONFIG))
    assert len(source) == 0
    assert {name: len(value) for name, value in lift_plan.pad_lift(start, source, 9).items()} == {
        "entries": 1,
        "parts": 1,
        "sums": 32 * 18,
    }


@pytest.mark.parametrize(
    ("intrinsics", "poses"),
    [((2, 3, 3), (1, 4, 4)), ((3, 3), (4, 4)), ((1, 3, 3), (1, 3, 4))],
    ids=["other counts", "no axis of cameras", "no rigid transforms"],
)
def test_shapes_that_do_not_fit_are_refused(intrinsics: tuple[int, ...], poses: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"should be \[N, 3, 3\] and"):
        lift_plan.plan_lift(np.ones(intrinsics), np.ones(poses), describe(CONFIG))


def test_numbers_that_are_not_finite_are_refused() -> None:
    k, poses = random_cameras(0, 1)
    poses[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        lift_plan.plan_lift(k, poses, describe(CONFIG))


@given(width=st.integers(16, 4000), height=st.integers(16, 4000), margin=st.floats(1.0, 1.5))
def test_an_image_is_fitted_as_in_training(width: int, height: int, margin: float) -> None:
    description = describe(CONFIG)
    description["image"]["margin"] = margin
    resized, offset, matrix = lift_plan.fit_image(width, height, description)
    expected = ImageFit.bottom((width, height), IMAGE, margin)
    assert (resized, offset) == (expected.resized, expected.offset)
    np.testing.assert_allclose(matrix, expected.matrix, rtol=1e-12)


@given(left=st.integers(-70, 70), top=st.integers(-50, 50))
def test_what_is_cut_outside_a_picture_is_black(left: int, top: int) -> None:
    picture = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)
    wide = np.zeros((230, 240, 3), np.uint8)
    wide[100:130, 100:140] = picture
    expected = wide[100 + top : 120 + top, 100 + left : 130 + left]
    np.testing.assert_array_equal(lift_plan.cut_out(picture, left, top, 30, 20), expected)
