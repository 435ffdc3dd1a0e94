"""The lift: where image features land on the bird's-eye view, and what flows back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import LiftPlan, PlanCache, bev_grid, cell_pixels, depth_bins, lift
from bridgeta_core.utils.errors import BridgeTAError

FEATURES, IMAGE = (2, 3), (16, 24)  # (height, width): stride 8
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def small(**changes: float | int | str) -> LiftConfig:
    """Eight cells of one metre along x, twelve along y, four depth bins."""
    values = {"depth_min": 1.0, "depth_max": 9.0, "depth_step": 2.0, "z_min": -4.0, "z_max": 4.0} | changes
    return LiftConfig(grid=BevGrid(-4, 4, -6, 6, 1.0), **values)  # type: ignore[arg-type]


def camera(yaw: float, x: float = 0.0, y: float = 0.0, z: float = 1.5, pitch: float = 0.0) -> NDArray[np.float64]:
    """ego_T_cam of a camera that looks along `yaw` (counter-clockwise) and `pitch` (down), in radians."""
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn @ OPTICAL, (x, y, z)
    return pose


def pinhole(focal: float, u: float = 11.5, v: float = 7.5) -> NDArray[np.float64]:
    return np.array([[focal, 0, u], [0, focal, v], [0, 0, 1.0]])


def random_rig(rng: np.random.Generator, batch: int, cameras: int) -> tuple[Tensor, Tensor]:
    k = [
        [pinhole(rng.uniform(8, 30), rng.uniform(8, 15), rng.uniform(5, 10)) for _ in range(cameras)]
        for _ in range(batch)
    ]
    pose = [
        [camera(rng.uniform(-3, 3), *rng.uniform(-2, 2, 3), pitch=rng.uniform(-0.4, 0.4)) for _ in range(cameras)]
        for _ in range(batch)
    ]
    return torch.tensor(np.array(k)), torch.tensor(np.array(pose))


def volume(rng: np.random.Generator, batch: int, cameras: int, bins: int, channels: int) -> tuple[Tensor, Tensor]:
    depth = torch.from_numpy(rng.random((batch, cameras, bins, *FEATURES)))
    return depth, torch.from_numpy(rng.standard_normal((batch, cameras, channels, *FEATURES)))


def make(k: Tensor, pose: Tensor, config: LiftConfig) -> LiftPlan:
    return LiftPlan.build(k, pose, FEATURES, IMAGE, config)


def by_loops(depth: Tensor, features: Tensor, k: Tensor, pose: Tensor, config: LiftConfig) -> tuple[Tensor, float]:
    """The definition, point by point; also how near the nearest point comes to a border, in metres."""
    grid, (rows, columns) = config.grid, config.grid.shape
    bev = torch.zeros(len(depth), features.shape[2], rows, columns, dtype=torch.float64)
    margin = 1.0
    for b, n, d, i, j in np.ndindex(*depth.shape):
        metres = config.depth_min + (d + 0.5) * config.depth_step
        stride = IMAGE[0] / FEATURES[0]
        pixel = np.array([j * stride + (stride - 1) / 2, i * stride + (stride - 1) / 2, 1.0])
        x, y, z = (pose[b, n].numpy() @ np.append(np.linalg.inv(k[b, n].numpy()) @ pixel * metres, 1.0))[:3]
        column, row = (x - grid.x_min) / grid.resolution, (y - grid.y_min) / grid.resolution
        margin = min(margin, abs(column - round(column)), abs(row - round(row)))
        margin = min(margin, abs(z - config.z_min), abs(z - config.z_max))
        if 0 <= column < columns and 0 <= row < rows and config.z_min <= z <= config.z_max:
            bev[b, :, int(row), int(column)] += depth[b, n, d, i, j] * features[b, n, :, i, j]
    return bev, margin


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), cameras=st.integers(1, 3))
def test_the_lift_equals_its_definition_point_by_point(seed: int, batch: int, cameras: int) -> None:
    rng = np.random.default_rng(seed)
    k, pose = random_rig(rng, batch, cameras)
    depth, features = volume(rng, batch, cameras, 4, 5)
    expected, margin = by_loops(depth, features, k, pose, small())
    assume(margin > 1e-4)  # the plan is float32: on a border either side is right
    torch.testing.assert_close(lift(depth, features, make(k, pose, small())), expected)


def test_gradients_equal_finite_differences() -> None:
    rng = np.random.default_rng(3)
    k, pose = random_rig(rng, 2, 2)
    plan = make(k, pose, small())
    assert plan.entries > 20
    depth, features = (x.requires_grad_() for x in volume(rng, 2, 2, 4, 3))
    assert torch.autograd.gradcheck(lambda d, f: lift(d, f, plan), (depth, features))


@pytest.mark.parametrize("needs", ["depth", "features"])
def test_gradient_flows_to_either_input_alone(needs: str) -> None:
    rng = np.random.default_rng(5)
    k, pose = random_rig(rng, 1, 2)
    plan = make(k, pose, small())
    depth, features = volume(rng, 1, 2, 4, 3)
    both = [x.clone().requires_grad_() for x in (depth, features)]
    lift(*both, plan).square().sum().backward()
    wanted = {"depth": both[0].grad, "features": both[1].grad}[needs]
    leaf = {"depth": depth, "features": features}[needs].requires_grad_()
    lift(depth, features, plan).square().sum().backward()
    assert wanted is not None
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(leaf.grad, wanted)


@pytest.mark.parametrize("yaw_degrees", [0, 55, -55, 110, 180, -110])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_pixel_at_a_known_depth_lands_in_its_cell(yaw_degrees: int, column: int) -> None:
    config = LiftConfig(depth_min=1.0, depth_max=31.0, depth_step=2.0, grid=BevGrid(-40, 40, -30, 30, 0.5))
    yaw, focal, d = np.deg2rad(yaw_degrees), 20.0, 7
    plan = make(torch.tensor(pinhole(focal))[None, None], torch.tensor(camera(yaw, 1.3, -0.2))[None, None], config)
    depth, features = torch.zeros(1, 1, 15, *FEATURES), torch.zeros(1, 1, 4, *FEATURES)
    depth[0, 0, d, 1, column], features[0, 0, :, 1, column] = 1.0, torch.tensor([1.0, 2, 3, 4])
    forward = 1.0 + (d + 0.5) * 2.0
    left = -(column * 8 + 3.5 - 11.5) / focal * forward
    x = 1.3 + forward * np.cos(yaw) - left * np.sin(yaw)
    y = -0.2 + forward * np.sin(yaw) + left * np.cos(yaw)
    bev = lift(depth, features, plan)[0]
    row_and_column = bev.sum(0).nonzero().tolist()
    assert row_and_column == [[int((y + 30) // 0.5), int((x + 40) // 0.5)]]
    assert bev[:, row_and_column[0][0], row_and_column[0][1]].tolist() == [1, 2, 3, 4]


def test_left_is_positive_y_and_front_is_positive_x() -> None:
    k = torch.tensor(pinhole(20.0))[None, None]
    ones = torch.ones(1, 1, 4, *FEATURES), torch.ones(1, 1, 1, *FEATURES)
    left = lift(*ones, make(k, torch.tensor(camera(np.pi / 2))[None, None], small()))[0, 0]
    front = lift(*ones, make(k, torch.tensor(camera(0.0))[None, None], small()))[0, 0]
    assert left.sum() > 0
    assert left[:6].sum() == 0
    assert front.sum() > 0
    assert front[:, :4].sum() == 0


@pytest.mark.parametrize(
    "pose", [camera(0.0, x=100.0), camera(0.0, pitch=-np.pi / 2, z=20.0), camera(0.0, pitch=np.pi / 2, z=-20.0)]
)
def test_a_camera_off_the_grid_gives_zeros_and_no_gradient(pose: NDArray[np.float64]) -> None:
    plan = make(torch.tensor(pinhole(20.0))[None, None], torch.tensor(pose)[None, None], small())
    depth, features = (x.requires_grad_() for x in volume(np.random.default_rng(0), 1, 1, 4, 3))
    bev = lift(depth, features, plan)
    bev.sum().backward()
    assert plan.entries == 0
    assert bev.abs().sum() == 0
    assert depth.grad is not None
    assert depth.grad.abs().sum() == 0


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_large_enough_grid_loses_no_mass(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, pose = random_rig(rng, 1, 2)
    config = small(z_min=-100.0, z_max=100.0)
    config.grid = BevGrid(-64, 64, -64, 64, 1.0)
    depth, features = volume(rng, 1, 2, 4, 3)
    bev = lift(depth, features, make(k, pose, config))
    expected = (depth.sum(2, keepdim=True) * features).sum((1, 3, 4))
    torch.testing.assert_close(bev.sum((2, 3)), expected)


def test_a_batch_of_different_rigs_equals_its_samples() -> None:
    rng = np.random.default_rng(1)
    k, pose = random_rig(rng, 3, 2)
    depth, features = volume(rng, 3, 2, 4, 5)
    alone = [make(k[i : i + 1], pose[i : i + 1], small()) for i in range(3)]
    expected = torch.cat([lift(depth[i : i + 1], features[i : i + 1], alone[i]) for i in range(3)])
    for plan in (make(k, pose, small()), LiftPlan.stack(alone)):
        torch.testing.assert_close(lift(depth, features, plan), expected, rtol=0, atol=0)
    built, stacked = make(k, pose, small()), LiftPlan.stack(alone)
    for a, b in ((built.gather, stacked.gather), (built.spread, stacked.spread)):
        assert a.shape == b.shape
        assert all(torch.equal(x, y) for x, y in ((a.crow, b.crow), (a.col, b.col), (a.source, b.source)))
    assert torch.equal(built.ground, stacked.ground)


def test_a_stacked_plan_has_the_gradients_of_its_samples() -> None:
    rng = np.random.default_rng(2)
    k, pose = random_rig(rng, 1, 2)
    plan = make(k, pose, small())
    depth, features = (x.requires_grad_() for x in volume(rng, 3, 2, 4, 5))
    together = torch.autograd.grad(lift(depth, features, LiftPlan.stack([plan] * 3)).square().sum(), (depth, features))
    alone = [lift(depth[i : i + 1], features[i : i + 1], plan).square().sum() for i in range(3)]
    for a, b in zip(together, torch.autograd.grad(torch.stack(alone).sum(), (depth, features)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_cache_builds_each_calibration_once() -> None:
    rng = np.random.default_rng(4)
    k, pose = random_rig(rng, 3, 2)
    built = []

    def build(intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        built.append(float(intrinsics[0, 0, 0, 0]))
        return make(intrinsics, ego_T_cam, small())

    cache = PlanCache(build, size=2)
    depth, features = volume(rng, 4, 2, 4, 5)
    order = [0, 1, 0, 1]
    torch.testing.assert_close(
        lift(depth, features, cache(k[order], pose[order])), lift(depth, features, make(k[order], pose[order], small()))
    )
    assert built == [float(k[0, 0, 0, 0]), float(k[1, 0, 0, 0])]
    cache(k[2:], pose[2:])
    cache(k[1:2], pose[1:2])
    assert len(built) == 3
    cache(k[:1], pose[:1])
    assert len(built) == 4
    cache(k[:1], pose[:1] + 1e-9)
    assert len(built) == 5


def test_under_autocast_the_lift_computes_in_float32() -> None:
    rng = np.random.default_rng(6)
    k, pose = random_rig(rng, 1, 2)
    plan = make(k, pose, small())
    depth, features = (x.float().requires_grad_() for x in volume(rng, 1, 2, 4, 5))
    plain = lift(depth, features, plan)
    expected = torch.autograd.grad(plain.square().sum(), (depth, features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bev = lift(depth, features, plan)
        found = torch.autograd.grad(bev.square().sum(), (depth, features))
    assert bev.dtype == torch.float32
    assert torch.equal(bev, plain)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_half_precision_features_get_half_precision_gradients() -> None:
    rng = np.random.default_rng(7)
    k, pose = random_rig(rng, 1, 2)
    depth, features = volume(rng, 1, 2, 4, 5)
    depth, features = depth.float().requires_grad_(), features.bfloat16().requires_grad_()
    lift(depth, features, make(k, pose, small())).sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.bfloat16


def test_memory_layout_does_not_change_the_result() -> None:
    rng = np.random.default_rng(8)
    k, pose = random_rig(rng, 1, 2)
    plan = make(k, pose, small())
    depth, features = volume(rng, 1, 2, 4, 5)
    last = [x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) for x in (depth, features)]
    assert torch.equal(lift(*last, plan), lift(depth, features, plan))
    assert lift(*last, plan).is_contiguous(memory_format=torch.channels_last)


def test_feature_cells_are_centred_on_their_pixels() -> None:
    u, v = cell_pixels((2, 3), (16, 24))
    assert u.tolist() == [3.5, 11.5, 19.5]
    assert v.tolist() == [3.5, 11.5]


def test_rays_may_spread_from_the_first_pixel_to_the_last() -> None:
    u, v = cell_pixels((2, 3), (16, 24), "spread")
    assert u.tolist() == [0, 11.5, 23]
    assert v.tolist() == [0, 15]


def test_a_bin_may_stand_for_its_near_edge() -> None:
    assert depth_bins(small(depth_place="near")).tolist() == [1, 3, 5, 7]


def test_wide_edges_take_what_lies_one_cell_beyond() -> None:
    # Looking back from 0.3 m ahead of the rear edge at -4 m, and to the left from 0.3 m inside the left edge at 6 m.
    k = torch.tensor(pinhole(1e6)).expand(1, 2, 3, 3)
    pose = torch.tensor(np.stack([camera(np.pi, x=-2.7, y=0.5), camera(np.pi / 2, x=0.5, y=4.7)]))[None]
    bins = {"depth_min": 1.0, "depth_max": 4.0, "depth_step": 1.0, "depth_place": "near"}
    depth = torch.tensor([1.0, 10.0, 100.0]).double()[None, None, :, None, None].expand(1, 2, 3, *FEATURES)
    cells = FEATURES[0] * FEATURES[1]
    for edge, expected in (("cut", 1), ("widen", 11)):  # 0.3 m inside, 0.7 m and 1.7 m beyond
        bev = lift(depth, torch.ones(1, 2, 1, *FEATURES).double(), make(k, pose, small(**bins, edge=edge)))[0, 0]
        assert bev[6, 0] == expected * cells
        assert bev[-1, 4] == expected * cells
        assert bev.sum() == 2 * expected * cells


def test_depth_bins_of_the_protocol() -> None:
    bins = depth_bins(LiftConfig())
    assert len(bins) == 118
    assert (bins[0], bins[-1]) == (1.25, 59.75)


def test_ground_is_the_inverse_depth_of_the_road() -> None:
    k, pose = torch.tensor(pinhole(20.0, v=5.0))[None, None], torch.tensor(camera(0.7, z=1.6))[None, None]
    ground = make(k, pose, small()).ground
    # Similar triangles: depth = focal * height / (v - principal point), above the horizon no depth at all.
    assert ground[0, 0, 1].tolist() == pytest.approx([(11.5 - 5.0) / (20.0 * 1.6)] * 3)
    assert (ground[0, 0, 0] < 0).all()


def test_the_stride_after_the_lift_keeps_the_extent() -> None:
    assert bev_grid(LiftConfig()) == BevGrid(-51.2, 51.2, -51.2, 51.2, 0.8)
    with pytest.raises(BridgeTAError, match="downsample"):
        bev_grid(LiftConfig(grid=BevGrid(0, 5, 0, 4, 1.0), downsample=2))


def test_wrong_shapes_and_numbers_are_errors() -> None:
    k, pose = random_rig(np.random.default_rng(0), 1, 2)
    plan = make(k, pose, small())
    depth, features = volume(np.random.default_rng(0), 1, 2, 4, 5)
    with pytest.raises(BridgeTAError, match="do not fit the plan"):
        lift(depth[:, :, :3], features, plan)
    with pytest.raises(BridgeTAError, match="do not fit the plan"):
        lift(depth, features[:, :1], plan)
    with pytest.raises(BridgeTAError, match=r"should be \[B, N, 3, 3\]"):
        make(k, pose[:, :1], small())
    with pytest.raises(BridgeTAError, match="not finite"):
        make(k * np.nan, pose, small())
    with pytest.raises(BridgeTAError, match="whole number"):
        make(k, pose, small(depth_step=3.0))
    with pytest.raises(BridgeTAError, match="cannot be stacked"):
        LiftPlan.stack([plan, make(k[:, :1], pose[:, :1], small())])
