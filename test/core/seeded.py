"""Weights and inputs that follow from their names alone, so that golden data need not hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CAMERAS = 2


def uniform(name: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Numbers in [-1, 1) that are always the same for a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).random(tuple(shape)) * 2 - 1


def weight(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A tensor of a network; its size keeps the features of deep networks at about one."""
    values, last = uniform(name, shape), name.rpartition(".")[2]
    if last == "running_var":
        values = 1 + 0.5 * values
    elif last == "weight" and len(shape) == 1:  # of a norm
        values = 0.8 + 0.4 * values
    elif last == "weight":
        values *= (6 / np.prod(shape[1:])) ** 0.5
    elif last != "relative_position_bias_table":
        values *= 0.3
    return values.astype(np.float32)


def images() -> NDArray[np.uint8]:
    """Network inputs `[CAMERAS, 256, 704, 3]`, blocks of 16 pixels with noise."""
    blocks = np.repeat(np.repeat(uniform("blocks", (CAMERAS, 16, 44, 3)), 16, axis=1), 16, axis=2)
    return (128 + 90 * blocks + 30 * uniform("noise", (CAMERAS, 256, 704, 3))).astype(np.uint8)


def cameras() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics `[CAMERAS, 3, 3]` of inputs and ego_T_cam `[CAMERAS, 4, 4]`: one looks ahead, one to the left rear."""
    intrinsics, poses = [], []
    for yaw, pitch, focal, place in ((0.03, 0.02, 607.3, (1.7, 0.1, 1.51)), (1.93, -0.01, 391.7, (0.6, 0.43, 1.57))):
        c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], place
        intrinsics.append([[focal, 0, 361.3], [0, focal, 59.2], [0, 0, 1]])
        poses.append(pose)
    return np.array(intrinsics), np.array(poses)


def chosen(name: str, size: int, count: int = 1500) -> NDArray[np.int64]:
    """Indices of a flat array of `size` numbers, of which golden data hold the values."""
    return np.unique(((uniform(f"chosen {name}", (count,)) + 1) / 2 * size).astype(np.int64))
