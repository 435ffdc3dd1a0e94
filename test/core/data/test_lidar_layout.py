"""What a LiDAR file holds instead of nuScenes' points is recognised."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.data.lidar_layout import check_points


def sweep(seed=0, count=600, rings=32):
    """A rotating LiDAR two metres above a plane with walls: x, y, z, intensity, ring."""
    rng = np.random.default_rng(seed)
    ring = rng.integers(0, rings, count)
    elevation = np.radians(-30 + 40 * ring / rings)
    azimuth = np.sort(rng.uniform(-np.pi, np.pi, count))
    reach = np.minimum(2 / np.maximum(-np.tan(elevation), 0.01), rng.uniform(5, 80, count))
    places = reach[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)], axis=1)
    return np.column_stack([places, rng.integers(0, 256, count), ring]).astype("<f4")


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 400), rings=st.sampled_from([1, 16, 32, 64, 128]))
def test_points_of_any_number_and_rings_are_accepted(seed, count, rings):
    assert check_points(sweep(seed, count, rings).tobytes()) is None


def test_a_real_sweep_is_accepted(real_root):
    (path,) = (real_root / "samples" / "LIDAR_TOP").iterdir()
    assert check_points(path.read_bytes()) is None


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    ("columns", "dtype", "said"),
    [
        (4, "<f4", "4 columns of float32 (x, y, z, intensity, as KITTI has them)"),
        (3, "<f4", "3 columns of float32 (x, y, z)"),
        (6, "<f4", "6 columns of float32"),
        (7, "<f4", "7 columns of float32"),
        (8, "<f4", "8 columns of float32"),
        (5, "<f8", "5 columns of float64"),
        (4, "<f8", "4 columns of float64"),
        (3, "<f8", "3 columns of float64"),
        (5, ">f4", "5 columns of big-endian float32"),
        (5, "<f2", "5 columns of float16"),
        (4, "<f2", "4 columns of float16"),
        (5, "<i2", "5 columns of int16"),
    ],
)
def test_other_columns_and_numbers_are_named(request, real, columns, dtype, said):
    points = sweep()
    if real:
        (path,) = (request.getfixturevalue("real_root") / "samples" / "LIDAR_TOP").iterdir()
        points = np.fromfile(path, "<f4").reshape(-1, 5)
    points = points[: len(points) // 60 * 60]
    time = np.linspace(0, 0.05, len(points))[:, None]
    points = np.hstack([points, time, np.zeros_like(time), points[:, 3:4]])[:, :columns]
    assert said in check_points(points.astype(dtype).tobytes())
    if points.shape[1] == 4:  # KITTI's own intensities are 0 to 1
        points[:, 3] /= 255
        assert "4 columns" in check_points(points.astype(dtype).tobytes())


def _scaled(*factors):
    return lambda points: points * np.float32(factors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_scaled(1000, 1000, 1000, 1, 1), "in millimetres or centimetres"),
        (_scaled(100, 100, 100, 1, 1), "in millimetres or centimetres"),
        (lambda p: p + np.float32([4e5, 4e6, 0, 0, 0]), "in the frame of a map"),
        (_scaled(1, 1, 1, 1 / 255, 1), "multiply them by 255"),
        (_scaled(1, 1, 1, 257, 1), "no intensity from 0 to 255"),
        (lambda p: p[:, [3, 0, 1, 2, 4]], "no intensity from 0 to 255"),
        (lambda p: p[:, [0, 1, 2, 4, 3]], "ring before intensity"),
        (lambda p: np.hstack([p[:, :4], p[:, :1] ** 2 * 1e-6]), "no ring number"),
        (_scaled(0, 0, 0, 1, 1), "x, y and z of all points are zero"),
        (np.zeros_like, "holds only zeros"),
        (lambda p: np.ascontiguousarray(p.T), "all x first, then all y"),
    ],
)
def test_implausible_values_are_named_with_their_likely_cause(change, said):
    assert said in check_points(change(sweep()).astype("<f4").tobytes())


def _as_npy(points):
    file = io.BytesIO()
    np.save(file, points)
    return file.getvalue()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_as_npy, "NumPy file (.npy)"),
        (lambda p: b"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\n" + p.tobytes(), "PCD file with a header"),
        (lambda p: b"ply\nformat binary_little_endian 1.0\n" + p.tobytes(), "PLY file"),
        (lambda p: b"\n".join(b"%f %f %f" % tuple(row[:3]) for row in p), "is a text that begins with"),
        (lambda p: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (lambda p: b"<html>not found</html>", "is a text that begins with '<html>"),
        (lambda p: b"\x1f\x8b\x08\x00" + p.tobytes(), "compressed with gzip"),
        (lambda p: p.tobytes()[:-3], "is truncated (a point has 20)"),
        (lambda p: b"", "is empty"),
    ],
)
def test_another_kind_of_file_is_named_whatever_its_size(write, said):
    data = write(sweep())
    for padding in range(4):
        assert said in check_points(data + b"\n" * padding if data else data)
        if "truncated" in said:
            break


@given(st.binary(max_size=4000))
def test_any_bytes_are_judged_without_failing(data):
    fault = check_points(data)
    assert fault is None or fault
