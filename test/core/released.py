"""Checkpoints in the layout of the published ones, with weights that follow from their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from seeded import weight
from torch import Tensor

FOLDER = Path(__file__).parent / "bevfusion"
DEPTHS = np.arange(1.0, 60.0, 0.5)


def read_golden(name: str) -> dict[str, NDArray[Any]]:
    """Read golden data. They hold values of the original network's tensors at places chosen by `seeded.chosen`."""
    with np.load(FOLDER / f"{name}.npz") as content:
        return dict(content)


def read_json(golden: dict[str, NDArray[Any]], name: str) -> dict[str, list[int]]:
    content: dict[str, list[int]] = json.loads(golden[name].tobytes())
    return content


def make_tensors(names: dict[str, list[int]]) -> dict[str, Tensor]:
    """Make all tensors of a checkpoint: the weights by their names, the rest by what upstream computes it from."""
    return {name: torch.from_numpy(_make(name, shape)) for name, shape in names.items()}


def _make(name: str, shape: list[int]) -> NDArray[Any]:
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.array(12_345)
    if last == "relative_position_index":
        y, x = np.divmod(np.arange(49), 7)
        return (y[:, None] - y + 6) * 13 + x[:, None] - x + 6
    if last == "frustum":
        u, v = np.linspace(0, 703, 88), np.linspace(0, 255, 32)
        planes = np.broadcast_arrays(u[None, None, :], v[None, :, None], DEPTHS[:, None, None])
        return np.stack(planes, axis=-1).astype(np.float32)
    if last in ("dx", "bx", "nx"):
        of_grid = {"dx": [0.4, 0.4, 20.0], "bx": [-51.0, -51.0, 0.0], "nx": [256, 256, 1]}[last]
        return np.array(of_grid, np.int64 if last == "nx" else np.float32)
    return weight(name, shape)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], **more: Any) -> Path:
    """Save a checkpoint as the training loop of mmcv does."""
    torch.save({"meta": {"epoch": 20, "iter": 100}, "state_dict": tensors, **more}, path)
    return path


def make_swin(prefix: str = "", mmdet: bool = False, width: int = 16) -> dict[str, Tensor]:
    """Make a small Swin backbone's tensors by Microsoft's names, or by mmdetection's with its norms of outputs."""
    names: dict[str, list[int]] = {}

    def add(name: str, *shape: int) -> None:
        names[f"{name}.weight"], names[f"{name}.bias"] = list(shape), [shape[0]]

    add("patch_embed.projection" if mmdet else "patch_embed.proj", width, 3, 4, 4)
    add("patch_embed.norm", width)
    for stage in range(4):
        c, path = width * 2**stage, f"{'stages' if mmdet else 'layers'}.{stage}"
        block, attention = f"{path}.blocks.0", "attn.w_msa" if mmdet else "attn"
        add(f"{block}.norm1", c)
        add(f"{block}.norm2", c)
        add(f"{block}.{attention}.qkv", 3 * c, c)
        add(f"{block}.{attention}.proj", c, c)
        add(f"{block}.{'ffn.layers.0.0' if mmdet else 'mlp.fc1'}", 4 * c, c)
        add(f"{block}.{'ffn.layers.1' if mmdet else 'mlp.fc2'}", c, 4 * c)
        names[f"{block}.{attention}.relative_position_bias_table"] = [169, 2**stage]
        names[f"{block}.{attention}.relative_position_index"] = [49, 49]
        if stage < 3:
            add(f"{path}.downsample.norm", 4 * c)
            names[f"{path}.downsample.reduction.weight"] = [2 * c, 4 * c]
        if mmdet and stage > 0:
            add(f"norm{stage}", c)
    return {f"{prefix}{name}": value for name, value in make_tensors(names).items()}
