"""Read the annotated boxes of a sample from the tables of a nuScenes root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.geometry.transforms import Matrix, rigid, transform
from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import find_root
from bridgeta_core.utils.limits import parse_json


@dataclass(frozen=True, eq=False)
class Box:
    """An annotated object: its nuScenes category, its pose and its (width, length, height) in metres.

    The origin of `global_T_box` is the middle of the box, x points forward, z up.
    """

    category: str
    global_T_box: Matrix
    size: tuple[float, float, float]

    def edges(self) -> list[Floats]:
        """Return the wire frame as global polylines `[n, 3]`; a cross marks the front."""
        width, length, height = self.size
        x, y, z = length / 2, width / 2, height / 2
        ring = np.array([(x, y), (x, -y), (-x, -y), (-x, y), (x, y)])
        base, top = (np.column_stack([ring, np.full(5, h)]) for h in (-z, z))
        uprights = [np.stack([base[i], top[i]]) for i in range(4)]
        front = [np.stack([base[0], top[1]]), np.stack([base[1], top[0]])]
        return [transform(self.global_T_box, line) for line in (base, top, *uprights, *front)]


def read_boxes(root: str | Path, version: str, sample: str) -> list[Box]:
    """Read the boxes of the sample with a token. Whole tables are read: seconds for trainval.

    Raises BridgeTAError when a table is missing or broken.
    """
    folder = find_root(root) / version
    records = [r for r in _read_table(folder, "sample_annotation") if r["sample_token"] == sample]
    wanted = {record["instance_token"] for record in records}
    category_of = {r["token"]: r["category_token"] for r in _read_table(folder, "instance") if r["token"] in wanted}
    names = {r["token"]: r["name"] for r in _read_table(folder, "category")}
    return [
        Box(names[category_of[r["instance_token"]]], rigid(r["translation"], r["rotation"]), tuple(r["size"]))
        for r in records
    ]


def _read_table(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.json"
    try:
        return list(parse_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise BridgeTAError(f"table {reason}", where=path, fix="Extract the metadata archive again") from error
