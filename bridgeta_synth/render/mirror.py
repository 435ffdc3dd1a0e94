"""What wet ground mirrors: the views of the scene from below the ground, at a fraction of the camera's size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from bridgeta_synth.render.lens import enlarged
from bridgeta_synth.render.looks.snapshot import Instant
from bridgeta_synth.render.rays.ray_caster import Traced, View

_SCALE = 4


def mirrored_views(views: Sequence[View], instants: Sequence[Instant]) -> list[View]:
    """Small views as if the ground that the ego stands on were a mirror, one for each view."""
    result = []
    for view, instant in zip(views, instants, strict=True):
        normal, place = instant.ego[:3, 2], instant.ego[:3, 3]
        reflection = np.eye(4)
        reflection[:3, :3] -= 2 * np.outer(normal, normal)
        reflection[:3, 3] = 2 * normal * (normal @ place)
        scale = np.diag((1 / _SCALE, 1 / _SCALE, 1.0))
        # Resizing keeps the image's corners in place, not its pixels' centres.
        scale[:2, 2] = 0.5 / _SCALE - 0.5
        size = math.ceil(view.width / _SCALE), math.ceil(view.height / _SCALE)
        result.append(View(reflection @ view.global_T_cam, scale @ view.intrinsics, *size))
    return result


def unsharp(image: Tensor, small: Traced, full: Traced) -> Tensor:
    """Radiance `[3, n]` of mirrored views, `small`, along the rays of the full ones: stretched towards the viewer, as
    the ripples of wet asphalt do with lights.
    """
    image = image.view(3, -1, small.height, small.width).transpose(0, 1)
    for _ in range(2):
        image = functional.avg_pool2d(functional.pad(image, (0, 0, 3, 3), mode="replicate"), (7, 1), stride=1)
    return enlarged(image, _SCALE, full.height, full.width).transpose(0, 1).reshape(3, -1)
