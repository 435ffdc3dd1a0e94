"""Recognise what a LiDAR file holds when it does not hold points as nuScenes has them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = 5  # x, y, z in metres, intensity 0-255, ring number, all float32 (nuScenes schema, .pcd.bin)
_ITEM = 4 * FIELDS
_FARTHEST = 1000.0  # metres; no LiDAR of a vehicle sees farther
_BRIGHTEST, _LAST_RING = 255.0, 1023.0
_LAST_OF_MOST = 127.0  # the last ring of nearly all LiDARs

_BEGINNINGS = {
    b"\x93NUMPY": "a NumPy file (.npy)",
    b"PK\x03\x04": "a zip archive (or .npz)",
    b"ply": "a PLY file",
    b"# .PCD": "a PCD file with a header",
    b"VERSION": "a PCD file with a header",
    b"LASF": "a LAS file",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"DRACO": "compressed with Draco",
}
# Types of number and their largest sane value, in the order in which they are tried: any bytes make sane int16.
_NUMBERS = {
    "<f4": ("float32", 1e7),
    "<f8": ("float64", 1e7),
    ">f4": ("big-endian float32", 1e7),
    "<i4": ("int32", 1e6),
    "<f2": ("float16", 1e5),
    "<i2": ("int16", 1e5),
}
_NAMES = {
    3: " (x, y, z)",
    4: " (x, y, z, intensity, as KITTI has them)",
    6: " (x, y, z, intensity, ring, time?)",
}
_COLUMNS = range(2, 13)
_SAMPLED = 60_000  # numbers that suffice to tell columns apart
_FEWEST = 100  # numbers below which columns cannot be told apart
_CLEAR = 0.08  # share of the variance that lies between the columns of points; it is nearly 0 for wrong columns


def check_points(data: bytes) -> str | None:
    """Say what keeps the content of a LiDAR file from being points `[n, 5]` as nuScenes has them; None when it is.

    That is cheap for good files. For others it names the likely cause: another kind of file, other columns or numbers,
    other units.
    """
    if not data:
        return "is empty"
    if not np.frombuffer(data, np.uint8).any():
        return "holds only zeros; was it written to the end?"
    fault = f"of {len(data)} bytes is truncated (a point has {_ITEM})" if len(data) % _ITEM else _find_fault(data)
    return fault and (_recognise(data) or fault)


def _find_fault(data: bytes) -> str | None:
    """Find values that points in metres, intensities and rings do not have."""
    # One copy by columns, since minima of adjacent numbers are many times as fast. They are NaN where any value is.
    columns = np.ascontiguousarray(np.frombuffer(data, "<f4").reshape(-1, FIELDS).T)
    low, high = columns.min(axis=1), columns.max(axis=1)
    if not np.isfinite([low, high]).all():
        broken = (~np.isfinite(columns)).any(axis=0).sum()
        return f": {broken:,} of {columns.shape[1]:,} points are not finite"
    reach = float(max(-low[:3].min(), high[:3].max()))
    if reach > _FARTHEST:
        return f": points reach {reach:,.0f} m; are they in millimetres or centimetres, or in the frame of a map?"
    if not (low[:3].any() or high[:3].any()):
        return ": x, y and z of all points are zero"
    if low[3] < 0 or high[3] > _BRIGHTEST:
        return f": the fourth value of its points is {low[3]:.4g} to {high[3]:.4g}, no intensity from 0 to 255"
    if high[4] > _LAST_OF_MOST >= high[3]:
        return ": the fourth and the fifth value of its points seem exchanged: ring before intensity"
    if low[4] < -1 or high[4] > _LAST_RING or not np.array_equal(columns[4], np.rint(columns[4])):
        return f": the fifth value of its points is {low[4]:.4g} to {high[4]:.4g}, no ring number"
    if 0 < high[3] <= 1 and not np.array_equal(columns[3], np.rint(columns[3])):
        return f": intensities are {low[3]:.4g} to {high[3]:.4g}, not 0 to 255; multiply them by 255"
    return None


def _recognise(data: bytes) -> str | None:
    """Name what a file is instead; None when that cannot be told or it has the right columns."""
    for beginning, kind in _BEGINNINGS.items():
        if data.startswith(beginning):
            return f"is {kind}, not float32 numbers alone"
    if re.fullmatch(rb"[\t\n\r -~]+", data[:2000]):
        return f"is a text that begins with {data[:20].decode()!r}, not float32 numbers"
    layout = _find_layout(data)
    if layout is None or layout == ("<f4", FIELDS):
        return None
    dtype, columns = layout
    what = (
        f"{columns} columns of {_NUMBERS[dtype][0]}{_NAMES.get(columns, '')}" if columns else "all x first, then all y"
    )
    return f"seems to hold {what}, not points of {FIELDS} columns of float32"


def _find_layout(data: bytes) -> tuple[str, int] | None:
    """Find the type of number that is sane, and the number of columns that makes them differ most.

    It is 0 where one column follows the other as a whole.
    """
    for dtype, (_, limit) in _NUMBERS.items():
        values = np.frombuffer(data, dtype, len(data) // np.dtype(dtype).itemsize)
        if len(values) < _FEWEST or not _are_sane(values, limit):
            continue
        magnitude = np.log1p(np.abs(np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)))
        shares = {c: _share_between(magnitude[:_SAMPLED], c) for c in _COLUMNS}
        best = max(shares.values())
        if best > _CLEAR:
            # Several times the columns separate as well: take the fewest.
            columns = next(c for c, share in shares.items() if share > 0.9 * best)
            return (dtype, columns) if len(values) % columns == 0 or columns == FIELDS else None
        whole = [c for c in _COLUMNS if len(values) % c == 0]
        shares = {c: _share_between(magnitude.reshape(c, -1).T.reshape(-1), c) for c in whole}
        return (dtype, 0) if max(shares.values(), default=0) > _CLEAR else None
    return None


def _are_sane(values: NDArray[Any], limit: float) -> bool:
    """Tell whether nearly all numbers may be coordinates: of another type of number most are tiny or huge."""
    with np.errstate(invalid="ignore"):
        size = np.abs(values.astype(np.float64))
        return bool(((size == 0) | ((size > 1e-12) & (size < limit))).mean() > 0.98)


def _share_between(magnitude: NDArray[Any], columns: int) -> float:
    """Return the share of the variance that lies between columns, less what chance gives (eta squared, adjusted)."""
    rows = magnitude[: len(magnitude) // columns * columns].reshape(-1, columns)
    total = rows.var()
    if not total:
        return 0.0
    return float(rows.mean(axis=0).var() / total - (columns - 1) / (rows.size - 1))
