"""Exported folders: programs without this package and without PyTorch get the same grids, or nothing is written."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import bevfusion_student, pictures, rig, trained_student
from torch import Tensor

from bridgeta_core.deploy.export import folder as export
from bridgeta_core.deploy.export.formats import FORMATS
from bridgeta_core.deploy.export.parity import Parity
from bridgeta_core.deploy.export.vehicle import lift_plan
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo, save_weights
from bridgeta_core.geometry.images import fit_intrinsics
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

CAMERAS = 3
# Run in the exported folder, with images and calibrated cameras in inputs.npz; the grids go to found.npy.
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import lift_plan

{load}

description = json.loads(Path("description.json").read_text())
inputs = np.load(sys.argv[1])
intrinsics = [
    lift_plan.fit_image(*size, description)[2] @ k for size, k in zip(inputs["sizes"].tolist(), inputs["intrinsics"])
]
ground, start, source = lift_plan.plan_lift(intrinsics, inputs["poses"], description)
depth, features = run("image", images=inputs["images"], ground=ground)
indices = lift_plan.pad_lift(start, source, depth.size)
{lift}
probabilities, = run("bev", lifted=lifted)
np.save(sys.argv[2], probabilities)
print(*sorted(sys.modules))
"""
LOAD = {
    "onnx": """
import onnxruntime
def run(name, **inputs):
    return onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"]).run(None, inputs)
""",
    "openvino": """
import openvino
def run(name, **inputs):
    model = openvino.compile_model(name + ".xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(model(inputs).values())
""",
    "aoti": """
import torch
def run(name, **inputs):
    result = torch._inductor.aoti_load_package(name + ".pt2")(*map(torch.from_numpy, inputs.values()))
    return [x.numpy() for x in (result if isinstance(result, (list, tuple)) else [result])]
""",
}
GRAPH = 'lifted, = run("lift", depth=depth, features=features, **indices)'
NUMPY = """grid = description["lift"]["grid"]
lifted = lift_plan.lift_features(depth, features, start, source).reshape(grid["rows"], grid["columns"], -1)"""


@dataclass
class Frame:
    """A set of images as datasets give it."""

    images: Tensor
    intrinsics: Tensor
    ego_T_cam: Tensor
    labels: Tensor
    known: Tensor


def choose_frames(info: WeightsInfo) -> tuple[str, list[Frame]]:
    cameras = rig(CAMERAS)
    fits = Runtime.from_student(trained_student(), info, "cpu").fits(cameras)
    labels = np.random.default_rng(2).integers(0, 2, (6, *info.grid.shape), dtype=np.uint8)
    frame = Frame(
        torch.from_numpy(pictures(CAMERAS)).permute(0, 3, 1, 2),
        torch.from_numpy(fit_intrinsics(cameras, fits)).float(),
        torch.from_numpy(np.stack([camera.ego_T_cam for camera in cameras.cameras])).float(),
        torch.from_numpy(labels),
        torch.ones(6, dtype=torch.bool),
    )
    return "noise", [frame]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, trained_student(), ("a", "b"), {"steps": 1})
    return path


Export = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export to a format, once."""
    folder = tmp_path_factory.mktemp("exported")

    def export_to(name: str) -> Path:
        if not (folder / name).exists():
            export.export_student(weights, folder / name, name, choose_frames, vehicle=name == "onnx")
        return folder / name

    return export_to


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, without this package on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-B", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def find_foreign(modules: str) -> set[str]:
    return {name.partition(".")[0] for name in modules.split()} & {"torch", "bridgeta_core", "bridgeta_ros"}


@pytest.mark.parametrize("name", ["onnx", "openvino", pytest.param("aoti", marks=pytest.mark.slow)])
def test_a_program_without_this_package_gets_the_same_grids(
    exported: Export, weights: Path, tmp_path: Path, name: str
) -> None:
    if name == "aoti" and shutil.which("g++") is None:
        pytest.skip("AOTInductor needs g++")
    cameras, images = rig(CAMERAS), pictures(CAMERAS)
    np.savez(
        tmp_path / "inputs.npz",
        images=images,
        sizes=[(camera.width, camera.height) for camera in cameras.cameras],
        intrinsics=[camera.intrinsics for camera in cameras.cameras],
        poses=[camera.ego_T_cam for camera in cameras.cameras],
    )
    program = PROGRAM.format(load=LOAD[name], lift=NUMPY if name == "aoti" else GRAPH)
    modules = run(exported(name), "-c", program, str(tmp_path / "inputs.npz"), str(tmp_path / "found.npy"))
    assert find_foreign(modules) == ({"torch"} if name == "aoti" else set())
    expected = Runtime(weights, "cpu").infer(images, cameras)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_layers_of_bevfusion_are_exported_too(tmp_path: Path, name: str) -> None:
    save_weights(tmp_path / "small.safetensors", trained_student(bevfusion_student()), ("a", "b"), {})
    found = export.export_student(tmp_path / "small.safetensors", tmp_path / "out", name, choose_frames)
    assert found.difference < 3e-4  # its batch norms have seen few cells, and magnify rounding


def test_the_example_reproduces_the_grids_of_its_sample(exported: Export) -> None:
    program = "import runpy, sys; sys.path.insert(0, '.'); sys.argv = ['example.py']; runpy.run_path('example.py')"
    lines = run(exported("onnx"), "-c", f"{program}; print(*sorted(sys.modules))").splitlines()
    assert not find_foreign(lines[-1])
    (difference,) = [float(line.split(":")[1]) for line in lines if line.startswith("largest difference")]
    assert difference < 1e-5
    scores = [line.split() for line in lines if " IoU " in line]
    assert len(scores) == 6
    assert all(found == theirs for *_, found, _, _, theirs, _ in scores)


def test_the_example_takes_images_of_ones_own(exported: Export, tmp_path: Path) -> None:
    shutil.copytree(exported("onnx") / "sample", tmp_path / "mine")
    output = run(exported("onnx"), "example.py", str(tmp_path / "mine" / "cameras.json"))
    assert "largest difference" not in output
    assert len(output.splitlines()) == 6


def test_a_moved_camera_needs_no_other_graph(exported: Export, weights: Path, tmp_path: Path) -> None:
    from bridgeta_core.deploy.export.exported import ExportedNetwork

    folder = exported("onnx")
    network = ExportedNetwork(folder, FORMATS["onnx"], json.loads((folder / "description.json").read_text()))
    runtime = Runtime(weights, "cpu")
    for cameras in (rig(1), rig(4, height=2.5)):
        images = pictures(len(cameras.cameras))
        poses = np.stack([camera.ego_T_cam for camera in cameras.cameras])
        found = network.infer(images, fit_intrinsics(cameras, runtime.fits(cameras)), poses)
        np.testing.assert_allclose(found, runtime.infer(images, cameras), atol=1e-5)


def test_the_description_is_that_of_the_weights(exported: Export, weights: Path) -> None:
    content = json.loads((exported("onnx") / "description.json").read_text())
    info = Runtime(weights, "cpu").info
    assert content["classes"] == list(info.classes)
    assert content["cameras"] == ["a", "b"]
    assert (content["grid"]["rows"], content["grid"]["columns"]) == info.grid.shape
    assert content["parity"]["sets_of_images"] == 1
    assert content["parity"]["largest_difference_of_a_probability"] < 1e-5
    assert content["provenance"] == {"steps": 1}
    assert content["files"].keys() == {"image.onnx", "lift.onnx", "bev.onnx"}


@pytest.fixture
def quick(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports to ONNX copy the graphs of the first."""

    first = exported("onnx")

    def copy(student: Student, folder: Path) -> None:
        for path in first.glob("*.onnx"):
            shutil.copy(path, folder)

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=copy))  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
def test_graphs_that_cannot_be_run_are_one_clear_error(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(student: Student, folder: Path) -> None:
        write(student, folder)
        (folder / "bev.onnx").write_bytes(b"no graph")

    write = FORMATS["onnx"].write
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=truncate))  # type: ignore[arg-type]
    with pytest.raises(BridgeTAError, match="the exported graphs cannot be loaded"):
        export.export_student(weights, tmp_path / "out", "onnx", choose_frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_loop_in_the_readme_lifts_as_numpy_does(tmp_path: Path) -> None:
    text = (Path(lift_plan.__file__).parent / "README.md").read_text()
    loop = text.partition("```cpp\n")[2].partition("```")[0]
    source = f'#include <algorithm>\n#include <cstdint>\nextern "C" {{\n{loop}}}\n'
    (tmp_path / "lift.cpp").write_text(source)
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(tmp_path / "lift.so")]
    subprocess.run(["g++", *options, str(tmp_path / "lift.cpp")], check=True)
    rng = np.random.default_rng(0)
    depth = rng.random((2, 3, 4, 5), dtype=np.float32)
    features = rng.standard_normal((2, 3, 4, 6), dtype=np.float32)
    counts = np.array([0, 7, 0, 30, 1])
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    entries = rng.permutation(depth.size)[: start[-1]].astype(np.int32)
    lifted = np.full((len(counts), 6), np.nan, np.float32)
    arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (depth, features, start, entries)]
    ctypes.CDLL(str(tmp_path / "lift.so")).lift(*arrays, len(counts), 5, 6, lifted.ctypes.data_as(ctypes.c_void_p))
    np.testing.assert_allclose(lifted, lift_plan.lift_features(depth, features, start, entries), atol=1e-5)


@pytest.mark.parametrize("name", ["data", "thesis"])
def test_data_and_other_folders_are_not_replaced(weights: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ("description.json" if name == "data" else name)).touch()
    inputs = [out] if name == "data" else []
    with pytest.raises(BridgeTAError, match=r"would replace|something else"):
        export.export_student(weights, out, "onnx", choose_frames, overwrite=True, inputs=inputs)
    assert len(list(out.iterdir())) == 1


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    infer = export.ExportedNetwork.infer
    monkeypatch.setattr(export.ExportedNetwork, "infer", lambda *arguments: change(infer(*arguments)))


@pytest.mark.usefixtures("quick")
def test_graphs_beyond_the_tolerance_are_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda grids: np.clip(grids + 0.02, 0, 1))
    with pytest.raises(BridgeTAError, match=r"differs by 2\.0e-02 from the original, more than 0\.001"):
        export.export_student(weights, tmp_path / "out", "onnx", choose_frames)
    assert list(tmp_path.iterdir()) == []
    parity = export.export_student(weights, tmp_path / "out", "onnx", choose_frames, tolerance=0.03)
    assert parity.difference == pytest.approx(0.02, abs=1e-4)
    assert (tmp_path / "out" / "bev.onnx").is_file()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_graphs_that_give_no_numbers_are_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    spoil(monkeypatch, lambda grids: np.full_like(grids, value))
    with pytest.raises(BridgeTAError, match="not finite"):
        export.export_student(weights, tmp_path / "out", "onnx", choose_frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_without_labels_there_is_no_iou(weights: Path, tmp_path: Path) -> None:
    def choose_unlabelled(info: WeightsInfo) -> tuple[str, list[Frame]]:
        data, (frame,) = choose_frames(info)
        return data, [replace(frame, known=torch.zeros(6, dtype=torch.bool))]

    parity = export.export_student(weights, tmp_path / "out", "onnx", choose_unlabelled, vehicle=True)
    assert not parity.has_labels
    assert {row["original"] for row in parity.to_mapping()["iou"].values()} == {None}
    output = run(tmp_path / "out", "example.py")
    assert "largest difference" in output
    assert "IoU" not in output


@pytest.mark.usefixtures("quick")
def test_an_iou_that_changes_is_told(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda grids: np.ones_like(grids))
    parity = export.export_student(weights, tmp_path / "out", "onnx", choose_frames, tolerance=0.999)
    assert isinstance(parity, Parity)
    changes = [row["exported"] - row["original"] for row in parity.to_mapping()["iou"].values()]
    assert any(changes)
    assert parity.changed > 0.9


@pytest.mark.usefixtures("quick")
def test_earlier_folders_are_replaced_only_on_request(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "description.json").write_text("earlier")
    with pytest.raises(BridgeTAError, match="already exists"):
        export.export_student(weights, out, "onnx", choose_frames)
    assert (out / "description.json").read_text() == "earlier"
    export.export_student(weights, out, "onnx", choose_frames, overwrite=True)
    assert (out / "description.json").read_text() != "earlier"
    assert (out / "lift.onnx").is_file()
