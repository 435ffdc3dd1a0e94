"""Run exported graphs as a program without this package does, to compare them with the original."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgeta_core.deploy.export.formats import Arrays, Format, explain_failures
from bridgeta_core.deploy.export.vehicle.lift_plan import lift_features, pad_lift, plan_lift


class ExportedNetwork:
    """The graphs in a folder with their `description`; `infer` is that of `Runtime`, with matrices for a rig."""

    def __init__(self, folder: Path, kind: Format, description: Mapping[str, Any]) -> None:
        self._description = dict(description)
        with explain_failures("the exported graphs cannot be loaded"):
            self._graphs = {name: kind.load(folder / f"{name}{kind.suffix}") for name in kind.graphs}

    def infer(self, images: NDArray[np.uint8], intrinsics: ArrayLike, ego_T_cam: ArrayLike) -> NDArray[np.float32]:
        """Compute probabilities `[6, Y, X]` from inputs `[N, h, w, 3]` (RGB), their intrinsics and their poses."""
        ground, start, source = plan_lift(intrinsics, ego_T_cam, self._description)
        depth, features = self._run("image", {"images": images, "ground": ground})
        if "lift" in self._graphs:
            indices = pad_lift(start, source, depth.size)
            (lifted,) = self._run("lift", {"depth": depth, "features": features, **indices})
        else:
            grid = self._description["lift"]["grid"]
            lifted = lift_features(depth, features, start, source).reshape(grid["rows"], grid["columns"], -1)
        (probabilities,) = self._run("bev", {"lifted": lifted})
        return np.asarray(probabilities, np.float32)

    def _run(self, name: str, inputs: Arrays) -> list[NDArray[Any]]:
        with explain_failures(f"the exported graph {name} cannot be run"):
            return self._graphs[name](inputs)
