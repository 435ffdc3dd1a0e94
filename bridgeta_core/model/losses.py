"""What a network learns from: labels, and the depth that the LiDAR measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bridgeta_core.config.experiment import LiftConfig


def focal_loss(logits: Tensor, targets: Tensor, known: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Compute the sigmoid focal loss: the mean over the cells of each class, summed over the classes.

    `logits` and `targets` in {0, 1} are `[B, K, Y, X]`; `known` `[B, K]` is False where a sample's map says nothing
    about a class, which is then left out. Every class is a binary problem, because the classes overlap.
    The modulating factor (1 - p_t)^gamma is Lin et al.'s (arXiv 1708.02002), without alpha, as in BEVFusion.
    `weights`, of the logits' shape, are factors of the cells. Computed in float32; 0 for a batch without any known
    class.
    """
    values = focal_map(logits, targets, gamma)
    return average_maps((values if weights is None else weights * values).mean(dim=(-2, -1)), known)


def average_maps(values: Tensor, known: Tensor) -> Tensor:
    """Average values of maps `[B, K]` over those that are `known`, and sum over the classes; 0 where none is."""
    weight = known.to(values.dtype)
    return ((values * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)).sum()


def focal_map(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Compute the focal loss of every element, in float32."""
    logits, targets = logits.float(), targets.to(torch.float32)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t is the sigmoid of the logit towards the wrong side: exact where 1 - exp(-cross_entropy) would cancel.
    return torch.sigmoid(logits * (1 - 2 * targets)) ** gamma * cross_entropy


def measure_depths(
    points: Sequence[Tensor],
    intrinsics: Tensor,
    ego_T_cam: Tensor,
    feature_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Tensor:
    """Measure the depth of the nearest point in every image cell, `[B, N, h, w]` in metres; infinity without a point.

    `points` are B tensors `[n_i, 5]` of the ego frame, of which those of the keyframe, whose time lag is 0, count.
    `intrinsics` `[B, N, 3, 3]` are those of the network input, `ego_T_cam` is `[B, N, 4, 4]`; `feature_size` and
    `image_size` are (height, width). Cell j of stride s has the pixels j s to (j + 1) s - 1, integers at their centres.
    """
    batch, cameras = intrinsics.shape[:2]
    (h, w), (height, width) = feature_size, image_size
    result = intrinsics.new_full((batch, cameras, h * w), torch.inf, dtype=torch.float32)
    cam_T_ego = torch.linalg.inv(ego_T_cam.double())
    projection = (intrinsics.double() @ cam_T_ego[:, :, :3]).float()  # [B, N, 3, 4]
    for cloud, matrix, nearest in zip(points, projection, result, strict=True):
        xyz = cloud[cloud[:, 4] == 0, :3].to(matrix)
        homogeneous = xyz @ matrix[:, :, :3].transpose(1, 2) + matrix[:, None, :, 3]  # [N, n, 3]
        depth = homogeneous[..., 2]
        pixels = homogeneous[..., :2] / depth.clamp(min=1e-3)[..., None]
        column = torch.floor((pixels[..., 0] + 0.5) * (w / width))
        row = torch.floor((pixels[..., 1] + 0.5) * (h / height))
        inside = (depth > 1e-3) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        cell = torch.where(inside, row * w + column, 0).long()
        nearest.scatter_reduce_(1, cell, torch.where(inside, depth, torch.inf), "amin")
    return result.view(batch, cameras, h, w)


def depth_loss(depth: Tensor, measured: Tensor, config: LiftConfig) -> Tensor:
    """Compute the cross-entropy of depth distributions `[B, N, D, h, w]` with the bins of `measured` `[B, N, h, w]`.

    The mean over the cells whose depth lies in the range of the bins, 0 where there is none. BEVDepth (Li et al., arXiv
    2206.10092) has binary cross-entropy over the bins instead, for the same target.
    """
    bins = torch.floor((measured - config.depth_min) / config.depth_step)
    known = (bins >= 0) & (bins < depth.shape[2])
    chosen = torch.where(known, bins, 0).long()
    probability = depth.float().gather(2, chosen[:, :, None]).squeeze(2)
    losses = -torch.log(probability.clamp(min=1e-6)) * known
    return losses.sum() / known.sum().clamp(min=1)
