"""The focal loss against its closed form; the LiDAR's depth in image cells against projection by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.transforms import invert, project, rigid, transform
from bridgeta_core.model.losses import average_maps, depth_loss, focal_loss, measure_depths

SIZE, CELLS, STRIDE = (16, 32), (2, 4), 8  # (height, width)
K = np.array([[20.0, 0, 15.5], [0, 20.0, 7.5], [0, 0, 1]])
AHEAD, ASTERN = (rigid([1.0, 0.2, 1.5], q) for q in ([0.5, -0.5, 0.5, -0.5], [0.5, -0.5, -0.5, 0.5]))
BINS = LiftConfig(depth_min=1.0, depth_max=5.0, depth_step=1.0)


def one_pixel(logit: float, target: int, gamma: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    p_true = p if target else 1 - p
    return -((1 - p_true) ** gamma) * math.log(p_true)


@given(
    st.lists(st.tuples(st.floats(-15, 15), st.integers(0, 1)), min_size=4, max_size=4),
    st.sampled_from([0.0, 1.0, 2.0, 3.5]),
)
def test_it_sums_classes_and_averages_pixels(pixels, gamma):
    logits = torch.tensor([logit for logit, _ in pixels], dtype=torch.float64).reshape(1, 2, 1, 2)
    targets = torch.tensor([target for _, target in pixels]).reshape(1, 2, 1, 2)
    values = [one_pixel(logit, target, gamma) for logit, target in pixels]
    expected = (values[0] + values[1]) / 2 + (values[2] + values[3]) / 2
    loss = focal_loss(logits, targets, torch.ones(1, 2, dtype=torch.bool), gamma)
    # float32: torch takes log(1 + x), which is off by up to 1e-7 for a confident and right pixel.
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_an_unknown_class_has_no_value_and_no_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    targets = (torch.rand(2, 3, 4, 4) > 0.5).to(torch.uint8)
    known = torch.tensor([[True, False, True], [False, False, True]])
    focal_loss(logits, targets, known, 2.0).backward()
    touched = logits.grad.abs().sum(dim=(-2, -1)) > 0
    assert torch.equal(touched, known)


def test_a_class_counts_alike_in_however_many_samples_it_is_known():
    logits, targets = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    everywhere = focal_loss(logits, targets, torch.tensor([[True], [True]]), 2.0)
    once = focal_loss(logits, targets, torch.tensor([[True], [False]]), 2.0)
    assert once.item() == pytest.approx(everywhere.item())


@pytest.mark.parametrize("magnitude", [60.0, 1e4])
def test_extreme_logits_stay_finite(magnitude):
    logits = torch.tensor([magnitude, -magnitude]).reshape(1, 1, 1, 2).requires_grad_()
    loss = focal_loss(logits, torch.tensor([0, 1]).reshape(1, 1, 1, 2), torch.ones(1, 1, dtype=torch.bool), 2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_cells_of_weight_0_do_not_count():
    logits, targets, known = torch.randn(1, 2, 2, 2), torch.ones(1, 2, 2, 2), torch.ones(1, 2, dtype=torch.bool)
    weights = torch.ones(1, 2, 2, 2)
    weights[..., 0] = 0
    half = focal_loss(logits[..., 1:], targets[..., 1:], known, 2.0)
    assert focal_loss(logits, targets, known, 2.0, weights).item() == pytest.approx(half.item() / 2)


def test_values_of_maps_are_averaged_over_the_known_ones_and_summed_over_classes():
    values = torch.tensor([[1.0, 10.0, 100.0], [3.0, 20.0, 200.0]])
    known = torch.tensor([[True, False, False], [True, True, False]])
    assert average_maps(values, known).item() == 2 + 20


def measure(*clouds: np.ndarray) -> torch.Tensor:
    """Measure the depths of clouds `[n, 4]` (x, y, z, lag) in a camera that looks ahead and one that looks back."""
    points = [torch.from_numpy(np.insert(cloud, 3, 0, axis=1)).float() for cloud in clouds]
    intrinsics = torch.from_numpy(K).float().expand(len(points), 2, 3, 3)
    poses = torch.from_numpy(np.stack([AHEAD, ASTERN])).float().expand(len(points), 2, 4, 4)
    return measure_depths(points, intrinsics, poses, CELLS, SIZE)


def test_a_point_on_the_optical_axis_is_as_deep_as_it_is_ahead():
    depths = measure(np.array([[11.0, 0.2, 1.5, 0.0]]))
    assert depths[0, 0, 1, 2] == pytest.approx(10.0)  # the pixel (15.5, 7.5) is at the corner of four cells
    assert torch.isinf(depths).sum() == depths.numel() - 1


def test_the_nearest_point_of_a_cell_counts_and_earlier_sweeps_do_not():
    assert measure(np.array([[11.0, 0.2, 1.5, 0.0], [7.0, 0.2, 1.5, 0.0], [4.0, 0.2, 1.5, 0.05]]))[0, 0, 1, 2] == 6.0


def test_a_sample_without_points_has_no_depth():
    assert torch.isinf(measure(np.empty((0, 4)), np.array([[11.0, 0.2, 1.5, 0.0]]))[0]).all()


@given(arrays(np.float64, (7, 3), elements=st.floats(-30, 30, width=16)))
def test_depths_are_those_of_the_points_one_by_one(points):
    expected = np.full((2, *CELLS), np.inf)
    borders = False
    for camera, pose in enumerate((AHEAD, ASTERN)):
        pixels, depth = project(K, transform(invert(pose), points))
        for (u, v), z in zip(pixels, depth, strict=True):
            place = np.array([v + 0.5, u + 0.5]) / STRIDE
            borders |= bool(z > -0.1 and (np.abs(place - place.round()) < 1e-3).any()) or abs(z) < 0.01
            row, column = np.floor(place) if np.isfinite(place).all() else (-1, -1)
            if z > 1e-3 and 0 <= row < CELLS[0] and 0 <= column < CELLS[1]:
                cell = camera, int(row), int(column)
                expected[cell] = min(expected[cell], z)
    if not borders:  # where rounding decides
        np.testing.assert_allclose(measure(np.insert(points, 3, 0, axis=1))[0], expected, rtol=1e-4)


@given(st.floats(0, 7), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_the_loss_is_the_logarithm_of_the_measured_bin(measured, weights):
    depth = torch.tensor(weights)[None, None, :, None, None] / sum(weights)
    loss = depth_loss(depth, torch.full((1, 1, 1, 1), measured), BINS)
    number = math.floor(np.float32(measured) - 1)
    expected = -math.log(weights[number] / sum(weights)) if 0 <= number < 4 else 0
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_the_mean_over_the_cells_that_are_measured():
    depth = torch.full((1, 1, 4, 1, 3), 0.25)
    depth[0, 0, :, 0, 1] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    loss = depth_loss(depth, torch.tensor([1.5, 2.5, torch.inf])[None, None, None], BINS)
    assert loss.item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_only_measured_cells_have_a_gradient():
    logits = torch.randn(1, 1, 4, 1, 2, requires_grad=True)
    depth_loss(logits.softmax(dim=2), torch.tensor([2.5, torch.inf])[None, None, None], BINS).backward()
    assert logits.grad[..., 0].abs().sum() > 0
    assert not logits.grad[..., 1].any()
