"""The kernels of the lift on a GPU, against PyTorch's sparse product."""

from __future__ import annotations

import pytest
import torch
from small_networks import ring_of_cameras
from torch import Tensor

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model import lift as module
from bridgeta_core.model.lift import LiftPlan, lift

pytestmark = pytest.mark.cuda

FEATURES, IMAGE = (8, 16), (64, 128)
CONFIG = LiftConfig(depth_min=1.0, depth_max=31.0, depth_step=0.5, grid=BevGrid(-32, 32, -32, 32, 0.8))


def make_inputs(channels: int, precision: torch.dtype, batch: int = 2) -> tuple[LiftPlan, Tensor, Tensor]:
    """Random depth and features of three cameras, and their plan, on the GPU."""
    torch.manual_seed(0)
    k, pose = ring_of_cameras(batch, 3, IMAGE[1], IMAGE[0])
    plan = LiftPlan.build(k, pose, FEATURES, IMAGE, CONFIG, "cuda")
    depth = torch.rand(batch, 3, plan.bins, *FEATURES, device="cuda").softmax(2)
    features = torch.randn(batch, 3, channels, *FEATURES, device="cuda").to(precision)
    return plan, depth.requires_grad_(), features.requires_grad_()


def run(plan: LiftPlan, depth: Tensor, features: Tensor) -> tuple[Tensor, ...]:
    """The lifted features and the gradients of depth and features for a fixed gradient."""
    bev = lift(depth, features, plan)
    weights = torch.linspace(-1, 1, bev.numel(), device=bev.device).view_as(bev).to(bev.dtype)
    return bev, *torch.autograd.grad(bev, (depth, features), weights)


def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lift_triton", None)


def test_a_gpu_has_the_kernel() -> None:
    assert module.lift_triton is not None


@pytest.mark.parametrize("channels", [1, 5, 32, 80, 130])
def test_the_kernel_equals_the_sparse_product(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(channels, torch.float32)
    fast = run(*inputs)
    without_kernel(monkeypatch)
    for a, b in zip(fast, run(*inputs), strict=True):
        assert b.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_features_are_summed_in_float32(precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(32, precision)
    fast = run(*inputs)
    assert fast[0].dtype == precision
    without_kernel(monkeypatch)
    for a, b in zip(fast, run(*inputs), strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=2e-2, atol=2e-2)


def test_the_kernel_gives_equal_bits_at_every_call() -> None:
    inputs = make_inputs(80, torch.float32)
    for a, b in zip(run(*inputs), run(*inputs), strict=True):
        assert torch.equal(a, b)


def test_a_plan_made_on_the_gpu_equals_one_of_the_cpu() -> None:
    k, pose = ring_of_cameras(2, 3, IMAGE[1], IMAGE[0])
    there, here = (LiftPlan.build(k, pose, FEATURES, IMAGE, CONFIG, device) for device in ("cuda", "cpu"))
    # A point on a border may fall to either side, by the rounding of one multiplication and addition.
    assert abs(there.entries - here.entries) <= 1e-3 * here.entries
    assert torch.allclose(there.ground.cpu(), here.ground)
