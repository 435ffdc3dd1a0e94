"""Camera features to bird's-eye-view features as one sparse matrix product.

Every image cell carries a distribution over depth bins. For fixed cameras it is known which BEV cell each
(camera, depth bin, image cell) falls into, so the lift of Lift-Splat (Philion & Fidler 2020) is BEV = S(depth) @ F:
S has one row per BEV cell, one column per image cell, and a pattern that changes only with the calibration. The
volume of depth times features, [B, N, D, C, h, w], never exists. On CUDA with Triton the product is a kernel of its
own; elsewhere it is PyTorch's, against which the kernel is tested.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

try:
    from bridgeta_core.model import lift_triton
except ImportError:  # PyTorch for CPUs comes without Triton
    lift_triton = None  # type: ignore[assignment]

# Indices are int32, because MKL computes with these; int64 ones would be converted at every product.
_MAX_INDEX = 2**31 - 1

with warnings.catch_warnings():
    # torch warns once per process that CSR tensors are in beta. A user cannot do anything about it.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))


def depth_bins(config: LiftConfig) -> Tensor:
    """Compute the depths that stand for the bins in metres along the optical axis, `[D]` float64.

    Raises BridgeTAError when the range is empty or not a whole number of bins.
    """
    count = (config.depth_max - config.depth_min) / config.depth_step
    if count < 1 or abs(count - round(count)) > 1e-6:
        raise BridgeTAError(
            f"model.lift: depth from {config.depth_min} to {config.depth_max} m is not a whole number of "
            f"{config.depth_step} m bins",
            exit_code=2,
        )
    place = 0.5 if config.depth_place == "centre" else 0.0
    return config.depth_min + (torch.arange(round(count), dtype=torch.float64) + place) * config.depth_step


def cell_pixels(
    feature_size: tuple[int, int], image_size: tuple[int, int], place: str = "centre"
) -> tuple[Tensor, Tensor]:
    """Compute the pixel coordinates (integers at pixel centres) of feature cells' rays: u `[w]`, v `[h]`, float64.

    Cell j of stride s covers the pixels j s to (j + 1) s - 1, so its centre is j s + (s - 1) / 2. With the `place`
    "spread" the first cell's ray runs through the first pixel and the last one's through the last, as in the frustum of
    Lift-Splat (Philion & Fidler 2020).
    """
    (h, w), (height, width) = feature_size, image_size
    if place == "spread":
        return (
            torch.linspace(0, width - 1, w, dtype=torch.float64),
            torch.linspace(0, height - 1, h, dtype=torch.float64),
        )
    return (
        (torch.arange(w, dtype=torch.float64) + 0.5) * (width / w) - 0.5,
        (torch.arange(h, dtype=torch.float64) + 0.5) * (height / h) - 0.5,
    )


@dataclass(frozen=True, eq=False)
class Pattern:
    """The non-zeros of a sparse matrix in CSR order, without their values.

    `crow` [rows + 1] and `col` [entries] are the CSR indices, and `source` [entries] says where each value stands
    in the depth volume laid out as [B, N, h, w, D]. All are int32. Two depth bins of one image cell that fall into
    the same BEV cell are two entries; a product adds them up.
    """

    crow: Tensor
    col: Tensor
    source: Tensor
    shape: tuple[int, int]

    def matrix_from_values(self, values: Tensor) -> Tensor:
        """Make the CSR matrix of `values` [entries]."""
        return torch.sparse_csr_tensor(self.crow, self.col, values, self.shape, check_invariants=False)

    def matrix_from_depth(self, depth: Tensor) -> Tensor:
        """Make the CSR matrix whose values come from the depth volume `[B, N, h, w, D]`."""
        return self.matrix_from_values(depth.reshape(-1).index_select(0, self.source))

    @classmethod
    def block_diagonal(cls, patterns: Sequence[Pattern], sources: Sequence[int]) -> Pattern:
        """Join independent patterns into one; `sources` are the sizes of their depth volumes."""
        crow, col, source = [patterns[0].crow[:1]], [], []
        rows = columns = entries = offset = 0
        for pattern, size in zip(patterns, sources, strict=True):
            crow.append(pattern.crow[1:] + entries)
            col.append(pattern.col + columns)
            source.append(pattern.source + offset)
            rows, columns = rows + pattern.shape[0], columns + pattern.shape[1]
            entries, offset = entries + len(pattern.col), offset + size
        _check_size(rows, columns, offset)
        return cls(torch.cat(crow), torch.cat(col), torch.cat(source), (rows, columns))


def _check_size(*sizes: int) -> None:
    if max(sizes) > _MAX_INDEX:
        raise BridgeTAError(
            f"the lift has {max(sizes)} elements, more than 32-bit indices reach", fix="Use a smaller batch"
        )


@dataclass(frozen=True, eq=False)
class LiftPlan:
    """Which image cell and depth bin falls into which BEV cell, for the cameras of B samples.

    `gather` has BEV cells as rows and image cells as columns; `spread` is its transpose, for the backward pass.
    `ground` [B, N, h, w] is the inverse of the depth (1/m) at which the ray of an image cell meets the plane z = 0
    of the ego frame, zero or less where it never does.
    """

    gather: Pattern
    spread: Pattern
    ground: Tensor
    bins: int
    bev_shape: tuple[int, int]

    @property
    def batch_size(self) -> int:
        return self.ground.shape[0]

    @property
    def camera_count(self) -> int:
        return self.ground.shape[1]

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the image features."""
        return self.ground.shape[2], self.ground.shape[3]

    @property
    def entries(self) -> int:
        """Number of non-zeros: depth bins of image cells that fall inside the grid."""
        return len(self.gather.col)

    @classmethod
    def build(
        cls,
        intrinsics: Tensor,
        ego_T_cam: Tensor,
        feature_size: tuple[int, int],
        image_size: tuple[int, int],
        config: LiftConfig,
        device: torch.device | str | None = None,
    ) -> LiftPlan:
        """Build the plan for `intrinsics` [B, N, 3, 3] of the network input and `ego_T_cam` [B, N, 4, 4] (optical).

        `feature_size` and `image_size` are (height, width); bins, grid and range of z come from `config`. The pattern
        is built on `device` (by default that of the intrinsics). Raises BridgeTAError on a wrong shape or a number
        that is not finite.
        """
        device = torch.device(device) if device is not None else intrinsics.device
        if intrinsics.ndim != 4 or intrinsics.shape[2:] != (3, 3) or ego_T_cam.shape != (*intrinsics.shape[:2], 4, 4):
            raise BridgeTAError(
                f"intrinsics {list(intrinsics.shape)} and ego_T_cam {list(ego_T_cam.shape)} "
                "should be [B, N, 3, 3] and [B, N, 4, 4]"
            )
        # Small and exact: 3x3 inverses and the rays are float64 on the CPU; only the large volume is float32.
        k, pose = intrinsics.detach().cpu().double(), ego_T_cam.detach().cpu().double()
        if not (torch.isfinite(k).all() and torch.isfinite(pose).all()):
            raise BridgeTAError("the calibration holds numbers that are not finite")
        batch, cameras = k.shape[:2]
        (h, w), (rows, columns), depths = feature_size, config.grid.shape, depth_bins(config)
        bins, cells = len(depths), rows * columns
        _check_size(batch * cells, batch * cameras * h * w * bins)

        u, v = cell_pixels(feature_size, image_size, config.pixel_place)
        pixels = torch.stack([u.repeat(h), v.repeat_interleave(w), torch.ones(h * w, dtype=torch.float64)])
        rays = pose[:, :, :3, :3] @ torch.linalg.inv(k) @ pixels  # [B, N, 3, h w]: metres in ego per metre of depth
        origin = pose[:, :, :3, 3:]
        grid = config.grid
        corner = torch.tensor([grid.x_min, grid.y_min, 0.0], dtype=torch.float64)[:, None]
        scale = torch.tensor([grid.resolution, grid.resolution, 1.0], dtype=torch.float64)[:, None]
        slope = (rays / scale).float().to(device)[..., None]
        start = ((origin - corner) / scale).float().to(device)[..., None]
        depth = depths.float().to(device)

        # [B, N, h w, D] each: continuous column and row of the grid, and height in metres.
        column, row, height = (start[:, :, i] + slope[:, :, i] * depth for i in range(3))
        # BEVFusion rounds towards zero, on axes that begin at the rear and at the left: its first cells are two wide.
        wider = 1 if config.edge == "widen" else 0
        inside = (column >= -wider) & (column < columns) & (row >= 0) & (row < rows + wider)
        inside &= (height >= config.z_min) & (height <= config.z_max)
        cell = row.int().clamp(max=rows - 1) * columns + column.int().clamp(min=0)
        cell += (torch.arange(batch, dtype=torch.int32, device=device) * cells)[:, None, None, None]

        # Image cells are enumerated in order, so only the pattern with BEV cells as rows needs sorting.
        source = inside.view(-1).nonzero().squeeze(1).int()
        target = cell.view(-1).index_select(0, source)
        image_cells = batch * cameras * h * w
        target_sorted, order = torch.sort(target, stable=True)
        edges = torch.arange(batch * cells + 1, dtype=torch.int32, device=device)
        gathered = source.index_select(0, order)
        gather = Pattern(
            torch.searchsorted(target_sorted, edges, out_int32=True),
            torch.div(gathered, bins, rounding_mode="floor"),
            gathered,
            (batch * cells, image_cells),
        )
        counts = inside.view(image_cells, bins).sum(1, dtype=torch.int32)
        crow = torch.zeros(image_cells + 1, dtype=torch.int32, device=device)
        torch.cumsum(counts, 0, dtype=torch.int32, out=crow[1:])
        spread = Pattern(crow, target, source, (image_cells, batch * cells))

        ground = (-rays[:, :, 2] / origin[:, :, 2].clamp(min=0.1)).float().view(batch, cameras, h, w)
        return cls(gather, spread, ground.to(device), bins, (rows, columns))

    @classmethod
    def stack(cls, plans: Sequence[LiftPlan]) -> LiftPlan:
        """Join plans of the same shapes along the batch. Copies indices and sorts nothing."""
        if len(plans) == 1:
            return plans[0]
        sizes = {(p.camera_count, p.feature_size, p.bins, p.bev_shape) for p in plans}
        if len(sizes) != 1:
            raise BridgeTAError(f"plans of different shapes cannot be stacked: {sorted(sizes)}")
        volumes = [p.ground.numel() * p.bins for p in plans]
        return replace(
            plans[0],
            gather=Pattern.block_diagonal([p.gather for p in plans], volumes),
            spread=Pattern.block_diagonal([p.spread for p in plans], volumes),
            ground=torch.cat([p.ground for p in plans]),
        )


class PlanCache:
    """A cache of plans by calibration, one per sample, for training and inference without geometric augmentation.

    Call it like `build`, with intrinsics [B, N, 3, 3] and ego_T_cam [B, N, 4, 4]. It holds the `size` calibrations
    that were used last. Safe to use from several threads.
    """

    def __init__(self, build: Callable[[Tensor, Tensor], LiftPlan], size: int = 16) -> None:
        self._build, self._size = build, size
        self._plans: OrderedDict[bytes, LiftPlan] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        """Stack the plan of a batch from cached samples, and build the others."""
        k, pose = intrinsics.detach().cpu(), ego_T_cam.detach().cpu()
        return LiftPlan.stack([self._find(k[i : i + 1], pose[i : i + 1]) for i in range(len(k))])

    def _find(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        key = intrinsics.numpy().tobytes() + ego_T_cam.numpy().tobytes()
        with self._lock:
            if key not in self._plans:
                self._plans[key] = self._build(intrinsics, ego_T_cam)
                if len(self._plans) > self._size:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            return self._plans[key]


class _SparseLift(torch.autograd.Function):
    """`gather(depth) @ features` for depth [B, N, h, w, D] and features [B N h w, C]."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, features: Tensor, plan: LiftPlan) -> Tensor:
        ctx.save_for_backward(depth, features)
        ctx.plan = plan
        return _multiply(plan.gather, depth, features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        depth, features = ctx.saved_tensors
        spread: Pattern = ctx.plan.spread
        grad_depth = grad_features = None
        with torch.autocast(depth.device.type, enabled=False):
            bev = gradients[0].to(features.dtype).contiguous()
            if ctx.needs_input_grad[0]:
                grad_depth = torch.zeros_like(depth, memory_format=torch.contiguous_format)
                _sample(spread, features.contiguous(), bev, grad_depth.view(-1))
            if ctx.needs_input_grad[1]:
                grad_features = _multiply(spread, depth, bev)
        return grad_depth, grad_features, None


def _has_kernel(tensor: Tensor) -> bool:
    return lift_triton is not None and lift_triton.is_usable(tensor)


def _multiply(pattern: Pattern, depth: Tensor, matrix: Tensor) -> Tensor:
    """Compute S(depth) @ matrix."""
    if _has_kernel(matrix):
        return lift_triton.sum_rows(pattern.crow, pattern.col, pattern.source, depth.reshape(-1), matrix)
    return pattern.matrix_from_depth(depth) @ matrix


def _sample(pattern: Pattern, left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write left @ right.T at the non-zeros of the pattern to their places in the flat depth volume `out`."""
    if _has_kernel(left):
        lift_triton.multiply_rows(pattern.crow, pattern.col, pattern.source, left, right, out)
        return
    zeros = pattern.matrix_from_values(torch.zeros(len(pattern.col), dtype=right.dtype, device=right.device))
    sampled = torch.sparse.sampled_addmm(zeros, left, right.t(), beta=0.0)
    out.index_copy_(0, pattern.source.long(), sampled.values())


def lift(depth: Tensor, features: Tensor, plan: LiftPlan) -> Tensor:
    """Lift depth distributions `[B, N, D, h, w]` and features `[B, N, C, h, w]` to BEV features `[B, C, Y, X]`.

    BEV[b, :, y, x] = sum of depth * feature over all cameras, bins and image cells of the sample that fall into the
    cell. Sums in float32 (float64 stays float64), under autocast too; the result has the precision of the features.
    Fastest when both inputs are channels-last in memory, as the result is. Raises BridgeTAError when the plan is for
    other shapes.
    """
    batch, cameras, _, h, w = depth.shape
    channels = features.shape[2]
    expected = (plan.batch_size, plan.camera_count, plan.bins, *plan.feature_size)
    if tuple(depth.shape) != expected or tuple(features.shape) != (batch, cameras, channels, h, w):
        raise BridgeTAError(
            f"depth {list(depth.shape)} and features {list(features.shape)} do not fit the plan of {list(expected)}"
        )
    double = depth.dtype == torch.float64
    with torch.autocast(depth.device.type, enabled=False):
        volume = depth.permute(0, 1, 3, 4, 2).to(torch.float64 if double else torch.float32)
        matrix = features.permute(0, 1, 3, 4, 2).reshape(-1, channels)
        if not _has_kernel(matrix):
            matrix = matrix.to(volume.dtype)
        if torch.is_grad_enabled() and (depth.requires_grad or features.requires_grad):
            bev: Tensor = _SparseLift.apply(volume, matrix, plan)
        else:
            bev = _multiply(plan.gather, volume, matrix)
    return bev.to(features.dtype).view(batch, *plan.bev_shape, channels).permute(0, 3, 1, 2)


def bev_grid(config: LiftConfig) -> BevGrid:
    """Return the grid of the BEV features after the stride that follows the lift."""
    grid = config.grid
    if any(size % config.downsample for size in grid.shape):
        raise BridgeTAError(
            f"model.lift: the grid's {grid.shape} cells are not divisible by downsample {config.downsample}",
            exit_code=2,
        )
    return BevGrid(grid.x_min, grid.x_max, grid.y_min, grid.y_max, grid.resolution * config.downsample)
