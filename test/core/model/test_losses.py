"""The focal loss against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.model.losses import focal_loss


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
