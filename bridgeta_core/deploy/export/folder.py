"""Write a student as a folder that runs without this package: graphs, description, lift, example."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.deploy.export.exported import ExportedNetwork
from bridgeta_core.deploy.export.formats import find_format
from bridgeta_core.deploy.export.parity import Frame, Infer, Parity, measure_parity, to_arrays
from bridgeta_core.deploy.export.vehicle import lift_plan
from bridgeta_core.deploy.weights import WeightsInfo, find_weights, load_student
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import depth_bins
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import replace_when_done

FORMAT = "bridgeta-export/1"
_DESCRIPTION = "description.json"
_VEHICLE = Path(lift_plan.__file__).parent


def describe_network(student: Student, info: WeightsInfo, weights: Path) -> dict[str, Any]:
    """Describe all that a program needs to know of a student beside its graphs, as plain values for JSON."""
    camera = student.camera
    return {
        "format": FORMAT,
        "classes": list(info.classes),
        "cameras": list(info.cameras),
        "image": {"width": camera.image.width, "height": camera.image.height, "margin": camera.image.margin},
        "features": list(camera.feature_size),
        "lift": describe_lift(camera.lift),
        "grid": _describe_grid(info.grid),
        "weights": {"name": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "provenance": info.provenance,
    }


def describe_lift(config: LiftConfig) -> dict[str, Any]:
    """Describe what `vehicle.lift_plan` needs to know of the lift."""
    return {
        "grid": _describe_grid(config.grid),
        "z_min": config.z_min,
        "z_max": config.z_max,
        "depths": depth_bins(config).tolist(),
        "channels": config.channels,
        "pixel_place": config.pixel_place,
        "edge": config.edge,
    }


def _describe_grid(grid: BevGrid) -> dict[str, float]:
    rows, columns = grid.shape
    bounds = {"x_min": grid.x_min, "x_max": grid.x_max, "y_min": grid.y_min, "y_max": grid.y_max}
    return {**bounds, "resolution": grid.resolution, "rows": rows, "columns": columns}


def export_student(
    weights: str | Path,
    out: Path,
    format_name: str,
    choose_frames: Callable[[WeightsInfo], tuple[str, Iterable[Frame]]],
    *,
    vehicle: bool = False,
    tolerance: float = 1e-3,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> Parity:
    """Write a student's graphs with all that is needed to run them as the folder `out`, whole or not at all.

    `choose_frames` returns what the graphs are compared with the original on, read from `inputs`, and its name. With
    `vehicle` the folder also has an example, the first of the frames as its input, and a page that explains it all.

    Raises BridgeTAError for a format that is unknown or not installed, as `load_student` and `replace_when_done` do,
    and when a probability differs by more than the tolerance.
    """
    kind = find_format(format_name)
    if vehicle and format_name != "onnx":
        what = f"a folder for a vehicle has ONNX graphs, which OpenVINO and TensorRT read too, not {format_name}"
        raise BridgeTAError(what, fix="Leave out --format, or --for", exit_code=2)
    if not 0 < tolerance < 1:
        raise BridgeTAError(f"a tolerance of {tolerance} is not between 0 and 1", exit_code=2)
    path = find_weights(weights)
    sources = [path, *inputs]
    with replace_when_done(out, folder=True, overwrite=overwrite, inputs=sources, sign=_DESCRIPTION) as folder:
        student, info = load_student(path)
        data, chosen = choose_frames(info)
        first, frames = _peek(chosen)
        folder.mkdir()
        kind.write(student, folder)
        description = describe_network(student, info, path)
        original, exported = _make_original(student), ExportedNetwork(folder, kind, description)
        parity = measure_parity(original, exported.infer, frames, info.grid, data)
        if parity.difference > tolerance:
            raise BridgeTAError(
                f"a probability of the exported graphs differs by {parity.difference:.1e} from the original, "
                f"more than {tolerance:g}",
                where=format_name,
                fix="Nothing was written. Another version of the exporter may help, or a larger --tolerance",
            )
        description |= {"files": _describe_files(folder), "versions": kind.read_versions()}
        description["parity"] = parity.to_mapping()
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        shutil.copy(_VEHICLE / "lift_plan.py", folder)
        if vehicle:
            for name in ("README.md", "example.py"):
                shutil.copy(_VEHICLE / name, folder)
            _write_sample(folder / "sample", first, original, description)
    return parity


def _peek(frames: Iterable[Frame]) -> tuple[Frame, Iterator[Frame]]:
    """Return the first of some frames, which are read one by one, and all of them."""
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise BridgeTAError("there are no images to compare the exported graphs on", exit_code=2)
    return first, itertools.chain([first], rest)


def _make_original(student: Student) -> Infer:
    @torch.inference_mode()
    def infer(
        images: NDArray[np.uint8], intrinsics: NDArray[np.float64], ego_T_cam: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        plan = student.plan(torch.from_numpy(intrinsics)[None], torch.from_numpy(ego_T_cam)[None])
        logits = student(torch.from_numpy(images).permute(0, 3, 1, 2)[None], plan).Z
        return np.asarray(logits[0].sigmoid().numpy(), np.float32)

    return infer


def _describe_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _write_sample(folder: Path, frame: Frame, original: Infer, description: Mapping[str, Any]) -> None:
    """Write a frame as camera images with their calibration, and the grids that belong to it.

    The images are as wide as a camera's that are cut but not resized, so that the network sees the very same pixels.
    """
    folder.mkdir()
    images, intrinsics, poses = to_arrays(frame)
    height, width = images.shape[1:3]
    wide = max(width, round(description["image"]["margin"] * width))
    _, (left, top), matrix = lift_plan.fit_image(wide, height, dict(description))
    cameras = []
    for i, (image, k, pose) in enumerate(zip(images, intrinsics, poses, strict=True)):
        picture = lift_plan.cut_out(image, -left, -top, wide, height)
        _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        (folder / f"camera_{i}.png").write_bytes(data.tobytes())  # cv2.imwrite does not tell when the disk is full
        k = np.linalg.inv(matrix) @ k
        cameras.append({"image": f"camera_{i}.png", "intrinsics": k.tolist(), "vehicle_T_camera": pose.tolist()})
    (folder / "cameras.json").write_text(json.dumps(cameras, indent=1) + "\n")
    arrays = {"probabilities": original(images, intrinsics, poses)}
    if frame.known.any():
        arrays["labels"] = frame.labels.numpy().astype(bool)
    np.savez_compressed(folder / "expected.npz", **arrays)
