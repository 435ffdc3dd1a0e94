"""Plan the lift of an exported network with NumPy alone: which depths of which image cells add up to which BEV cell.

This file is copied beside the exported graphs. It needs neither PyTorch nor BridgeTA, and is short enough to be written
again in C++. `description` is the content of description.json. Vehicle frame: x forward, y left, z up, metres. Camera
frame: x right, y down, z forward. Pixel (0, 0) is the centre of the top-left pixel.

Run `plan_lift` once per calibration, not per image; it takes some tens of milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENTRIES, PARTS = 32, 8  # width of the padded rows; wider ones have more padding, narrower ones are more


def fit_image(
    width: int, height: int, description: dict[str, Any]
) -> tuple[tuple[int, int], tuple[int, int], NDArray[np.float64]]:
    """Return how a rectified camera image of some size becomes an input of the network.

    Resize it to the first pair (width, height), averaging over areas (cv2.INTER_AREA), then cut out the network's size
    at the second pair (left, top), the bottom of the image; where that leaves the image, the input is black. The matrix
    `[3, 3]` times the camera's intrinsics gives those of the input.
    """
    image = description["image"]
    scale = image["margin"] * image["width"] / width
    resized = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (resized[0] - image["width"]) // 2, resized[1] - image["height"]
    sx, sy = resized[0] / width, resized[1] / height
    return resized, (left, top), np.array([[sx, 0, sx / 2 - 0.5 - left], [0, sy, sy / 2 - 0.5 - top], [0, 0, 1]])


def plan_lift(
    intrinsics: ArrayLike, vehicle_T_camera: ArrayLike, description: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Return `ground`, `start` and `source` for `intrinsics` [N, 3, 3] of the inputs and `vehicle_T_camera` [N, 4, 4].

    `ground` [N, h, w] goes into the graph `image`: the inverse of the depth at which the ray of an image cell meets the
    plane z = 0 of the vehicle. `start` [cells + 1] and `source` [entries] are the lift, in CSR order: BEV cell c (row y
    times columns plus column x) is the sum, over e from start[c] to start[c + 1] - 1, of

        depth.flat[source[e]] * features.reshape(-1, C)[source[e] // D]

    with the graph's outputs depth [N, h, w, D] and features [N, h, w, C].
    """
    k, pose = np.asarray(intrinsics, np.float64), np.asarray(vehicle_T_camera, np.float64)
    shapes_fit = k.ndim == 3 and k.shape[1:] == (3, 3) and pose.shape == (len(k), 4, 4)
    if not shapes_fit or not (np.isfinite(k).all() and np.isfinite(pose).all()):
        raise ValueError("intrinsics should be [N, 3, 3] and vehicle_T_camera [N, 4, 4], of finite numbers")
    (h, w), image, grid = description["features"], description["image"], description["lift"]["grid"]
    if description["lift"].get("pixel_place") == "spread":  # from the first pixel to the last
        u, v = np.linspace(0, image["width"] - 1, w), np.linspace(0, image["height"] - 1, h)
    else:  # pixels of the middles of the image cells
        u = (np.arange(w) + 0.5) * (image["width"] / w) - 0.5
        v = (np.arange(h) + 0.5) * (image["height"] / h) - 0.5
    pixels = np.stack([np.tile(u, h), np.repeat(v, w), np.ones(h * w)])
    rays = pose[:, :3, :3] @ np.linalg.inv(k) @ pixels  # [N, 3, h w]: metres in x, y, z per metre of depth
    origin = pose[:, :3, 3:]
    corner = np.array([grid["x_min"], grid["y_min"], 0.0])[:, None]
    cell = np.array([grid["resolution"], grid["resolution"], 1.0])[:, None]
    slope = (rays / cell).astype(np.float32)[..., None]
    begin = ((origin - corner) / cell).astype(np.float32)[..., None]
    depths = np.asarray(description["lift"]["depths"], np.float32)
    column, row, height = (begin[:, i] + slope[:, i] * depths for i in range(3))  # each [N, h w, D]
    low, high = description["lift"]["z_min"], description["lift"]["z_max"]
    wider = 1 if description["lift"].get("edge") == "widen" else 0  # the cells at the rear and left edges are two wide
    inside = (column >= -wider) & (column < grid["columns"]) & (row >= 0) & (row < grid["rows"] + wider)
    inside &= (height >= np.float32(low)) & (height <= np.float32(high))
    source = np.flatnonzero(inside)
    rows, columns = (x.flat[source].astype(np.int64) for x in (row, column))
    target = np.minimum(rows, grid["rows"] - 1) * grid["columns"] + np.maximum(columns, 0)
    order = np.argsort(target, kind="stable")
    start = np.searchsorted(target[order], np.arange(grid["rows"] * grid["columns"] + 1))
    ground = (-rays[:, 2] / np.maximum(origin[:, 2], 0.1)).reshape(-1, h, w)
    return ground.astype(np.float32), start.astype(np.int32), source[order].astype(np.int32)


def cut_out(picture: NDArray[np.uint8], left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    """Cut `[height, width, 3]` out of a resized picture; what lies outside of it is black."""
    result = np.zeros((height, width, 3), np.uint8)
    x, y = max(left, 0), max(top, 0)
    part = picture[y : max(top + height, 0), x : max(left + width, 0)]
    result[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]] = part
    return result


def lift_features(
    depth: NDArray[np.float32], features: NDArray[np.float32], start: ArrayLike, source: ArrayLike
) -> NDArray[np.float32]:
    """Return the BEV cells `[cells, C]` by the formula of `plan_lift`, without the graph `lift`.

    This is to read and to compare with: it is several times slower than the graph, which is slower than a loop in C++.
    """
    start, source, channels = np.asarray(start, np.int64), np.asarray(source, np.int64), features.shape[-1]
    result = np.zeros((len(start) - 1, channels), np.float32)
    filled = np.diff(start) > 0
    if filled.any():
        products = depth.reshape(-1, 1)[source] * features.reshape(-1, channels)[source // depth.shape[-1]]
        result[filled] = np.add.reduceat(products, start[:-1][filled], axis=0)
    return result


def pad_lift(start: ArrayLike, source: ArrayLike, size: int) -> dict[str, NDArray[np.int32]]:
    """Return the inputs of the graph `lift` beside depth and features; `size` is the number of depths, N * h * w * D.

    Few cells have many entries, so one padded row per cell would be nearly all padding. A cell has as many rows of
    ENTRIES `entries` as it needs; `parts` adds up PARTS of these rows at a time, and `sums` [cells, any width] the
    results. Each index of padding points behind the last element, where the graph has a zero.
    """
    start, source = np.asarray(start, np.int64), np.asarray(source, np.int64)
    first, entries = _pad_rows(start, source, ENTRIES, size)
    second, parts = _pad_rows(first, np.arange(first[-1]), PARTS, len(entries))
    counts = np.diff(second)
    place = second[:-1, None] + np.arange(max(1, counts.max(initial=0)))
    sums = np.where(np.arange(place.shape[1]) < counts[:, None], place, len(parts))
    return {"entries": entries, "parts": parts, "sums": sums.astype(np.int32)}


def _pad_rows(
    start: NDArray[np.int64], values: NDArray[np.int64], width: int, padding: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Lay the values of each cell in rows of `width`; return where the rows of each cell start, and the rows."""
    counts = np.diff(start)
    rows = -(-counts // width)
    first = np.concatenate([[0], np.cumsum(rows)])
    result = np.full(max(1, first[-1]) * width, padding, np.int32)  # one row of padding where there is nothing at all
    offset = np.arange(len(values)) - np.repeat(start[:-1], counts)
    result[np.repeat(first[:-1] * width, counts) + offset] = values
    return first, result.reshape(-1, width)
