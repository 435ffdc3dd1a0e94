"""The two parts of the student: with the lift between them they are the student, in PyTorch and as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_limit import little_memory
from numpy.typing import NDArray
from small_networks import GRID, random_images, ring_of_cameras, small_student, trained_student

from bridgeta_core.deploy.backends.graphs import ImagePart, export_onnx, fuse_batch_norms, lift_parts, split
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


@pytest.fixture(scope="module")
def student() -> Student:
    return trained_student()


@pytest.fixture(scope="module")
def graphs(student: Student, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    for part in split(student):
        export_onnx(part, folder / f"{part.NAME}.onnx")
    return {path.stem: path for path in folder.iterdir()}


def run(path: Path, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


@given(cameras=st.integers(1, 7))
def test_the_parts_and_the_lift_are_the_student(student: Student, cameras: int) -> None:
    images, plan = random_images(1, cameras), student.plan(*ring_of_cameras(1, cameras))
    image, bev = split(student)
    with torch.no_grad():
        depth, features = image(images[0].permute(0, 2, 3, 1), plan.ground[0])
        found = bev(lift_parts(depth, features, plan))
        expected = student(images, plan).Z[0].sigmoid()
    assert depth.shape == (cameras, *plan.feature_size, plan.bins)
    assert features.shape[:3] == depth.shape[:3]
    torch.testing.assert_close(depth.sum(-1), torch.ones(depth.shape[:3]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cameras", [1, 2, 6])
def test_the_onnx_graphs_compute_what_the_parts_do(student: Student, graphs: dict[str, Path], cameras: int) -> None:
    plan, (image, bev) = student.plan(*ring_of_cameras(1, cameras)), split(student)
    images = random_images(1, cameras)[0].permute(0, 2, 3, 1).contiguous()
    with torch.no_grad():
        depth, features = image(images, plan.ground[0])
        lifted = lift_parts(depth, features, plan).contiguous()
        probabilities = bev(lifted)
    found = run(graphs["image"], images=images.numpy(), ground=plan.ground[0].numpy())
    np.testing.assert_allclose(found[0], depth, atol=1e-5)
    np.testing.assert_allclose(found[1], features, atol=1e-4)
    np.testing.assert_allclose(run(graphs["bev"], lifted=lifted.numpy())[0], probabilities, atol=1e-5)


def test_a_graph_names_its_inputs_and_outputs_and_frees_the_cameras(graphs: dict[str, Path]) -> None:
    def describe(values: Any) -> dict[str, list[Any]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    image, bev = (onnx.load(graphs[name]).graph for name in ("image", "bev"))
    assert describe(image.input) == {"images": ["cameras", 32, 64, 3], "ground": ["cameras", 4, 8]}
    assert describe(image.output) == {"depth": ["cameras", 4, 8, 24], "features": ["cameras", 4, 8, 8]}
    assert describe(bev.input) == {"lifted": [32, 48, 8]}
    assert describe(bev.output) == {"probabilities": [6, 24, 40]}


def test_a_network_without_a_ground_prior_has_the_same_inputs(tmp_path: Path) -> None:
    image, _ = split(Student(small_student(), GRID))
    export_onnx(image, tmp_path / "image.onnx")
    assert [i.name for i in onnx.load(tmp_path / "image.onnx").graph.input] == ["images", "ground"]


def test_the_lift_leaves_the_number_of_threads_as_it_was(student: Student) -> None:
    plan, (image, _) = student.plan(*ring_of_cameras(1, 2)), split(student)
    before = torch.get_num_threads()
    with torch.no_grad():
        depth, features = image(random_images(1, 2)[0].permute(0, 2, 3, 1), plan.ground[0])
    torch.set_num_threads(3)
    try:
        lift_parts(depth, features, plan)
        assert torch.get_num_threads() == 3
        with pytest.raises(BridgeTAError):
            lift_parts(depth[:1], features, plan)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_splitting_leaves_the_student_alone(student: Student) -> None:
    parts = split(student)
    assert [m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not [m for part in parts for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_what_onnx_cannot_express_is_one_clear_error(student: Student, tmp_path: Path) -> None:
    class Branching(ImagePart):
        def forward(self, images: torch.Tensor, ground: torch.Tensor) -> Any:
            return (ground, ground) if images.float().mean() > 3 else (ground, -ground)

    with pytest.raises(BridgeTAError, match="the image part cannot be written as ONNX"):
        export_onnx(Branching(student), tmp_path / "image.onnx")


def test_a_lack_of_memory_is_not_taken_for_what_onnx_cannot_express(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch.onnx, "export", run_out)
    with pytest.raises(MemoryError):
        export_onnx(ImagePart(student), tmp_path / "image.onnx")


def test_graphs_are_not_written_where_the_exporter_would_crash(student: Student, tmp_path: Path) -> None:
    with little_memory(100 * 2**20), pytest.raises(MemoryError, match="no 256 MiB for writing ONNX graphs"):
        export_onnx(ImagePart(student), tmp_path / "image.onnx")


def test_only_norms_that_follow_a_convolution_are_folded() -> None:
    class PreActivation(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution_of_later = torch.nn.Conv2d(4, 4, 1)
            self.norm_of_before = torch.nn.BatchNorm2d(4)

    assert fuse_batch_norms(PreActivation().eval()) == 0
