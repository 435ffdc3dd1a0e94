"""Reading checkpoints: old formats work, code in them is never run, and what does not fit is named."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released import make_swin, read_golden, read_json, save_checkpoint
from torch import Tensor

from bridgeta_core.bevfusion.camera import CONFIGURATION, check_frustum
from bridgeta_core.bevfusion.checkpoint import Checkpoint, read_checkpoint
from bridgeta_core.bevfusion.importing import import_checkpoint
from bridgeta_core.bevfusion.tensors import Entry, take
from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.student import CameraBranch, Student
from bridgeta_core.utils.errors import BridgeTAError

SMALL = {"heads.map.classifier.6.weight": torch.ones(6, 4), "encoders.camera.neck.weight": torch.zeros(3)}
CAMERA = "encoders.camera."
TRANSFORM = f"{CAMERA}vtransform."


class Attack:
    """What a pickle of it does when it is loaded: it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def frustum(width: int, height: int) -> Tensor:
    u, v = torch.linspace(0, width - 1, width // 8), torch.linspace(0, height - 1, height // 8)
    depth = torch.arange(1.0, 60.0, 0.5)
    return torch.stack(torch.broadcast_tensors(u[None, None, :], v[None, :, None], depth[:, None, None]), -1)


def geometry() -> dict[str, Tensor]:
    return {
        f"{TRANSFORM}frustum": frustum(704, 256),
        f"{TRANSFORM}dx": torch.tensor([0.4, 0.4, 20.0]),
        f"{TRANSFORM}bx": torch.tensor([-51.0, -51.0, 0.0]),
    }


def full() -> dict[str, Tensor]:
    """All tensors of the camera-only network, which take no memory, and the geometry of its lift."""
    names = read_json(read_golden("camera_only"), "names")
    return {name: torch.zeros(()).expand(shape) for name, shape in names.items()} | geometry()


@pytest.mark.parametrize("new_format", [True, False])
def test_files_of_old_and_new_versions_are_read(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "file.pth"
    torch.save({"meta": {"epoch": 20}, "state_dict": SMALL}, path, _use_new_zipfile_serialization=new_format)
    found = read_checkpoint(path)
    assert found.network == "camera"
    assert found.tensors.keys() == SMALL.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in SMALL.items())
    assert found.describe_origin()["licence"] == "Apache-2.0"


@pytest.mark.parametrize(
    "content",
    [SMALL, {"model": SMALL}, {"state_dict": {f"module.{name}": value for name, value in SMALL.items()}}],
)
def test_tensors_are_found_wherever_they_lie(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "file.pth")
    assert read_checkpoint(tmp_path / "file.pth").tensors.keys() == SMALL.keys()


def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "file.pth", SMALL, best=np.float64(0.5), scores=np.arange(3.0))
    assert read_checkpoint(path).network == "camera"


@pytest.mark.parametrize("place", ["meta", "state_dict"])
@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, place: str, new_format: bool) -> None:
    victim, content = tmp_path / "was_here", {"meta": {"epoch": 1}, "state_dict": dict(SMALL)}
    content[place]["attack"] = Attack(victim)
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(BridgeTAError, match=r"asks for posix.mkdir, .* nothing of it was run"):
        read_checkpoint(tmp_path / "file.pth")
    assert not victim.exists()


def test_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Attack(tmp_path / "was_here")))
    with pytest.raises(BridgeTAError, match=r"file\.pth: cannot be read"):
        read_checkpoint(tmp_path / "file.pth")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_one_error(tmp_path: Path, share: float, new_format: bool) -> None:
    path = tmp_path / "file.pth"
    torch.save(SMALL, path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BridgeTAError, match=r"file.pth: .* Download it again"):
        read_checkpoint(path)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def write_packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 100_000)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_tar, "cannot be read"),
        (write_packed, "is a packed zip file"),
        (lambda path: path.write_text("<html>Not found</html>"), "cannot be read"),
        (lambda path: torch.save([1, 2], path), "holds no tensors"),
        (lambda path: torch.save({"a": torch.zeros(1, 1).expand(2**16, 2**16)}, path), "holds 4,294,967,296 numbers"),
        (lambda path: torch.save({"state_dict": {"a": 1}}, path), "holds no tensors"),
        (lambda path: torch.save({"conv1.weight": torch.ones(2)}, path), "is no network of mit-han-lab/bevfusion"),
        (Path.mkdir, "no such file"),
        (lambda _: None, "no such file"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_one_error(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "file.pth"
    write(path)
    with pytest.raises(BridgeTAError, match=rf"file.pth: {message}"):
        _ = read_checkpoint(path).network


def test_a_detector_is_refused_by_name(tmp_path: Path) -> None:
    tensors = {"encoders.camera.neck.weight": torch.ones(2), "heads.object.shared_conv.weight": torch.ones(2)}
    path = save_checkpoint(tmp_path / "bevfusion-det.pth", tensors)
    with pytest.raises(BridgeTAError, match=r"is a detection network .* segmentation checkpoints"):
        import_checkpoint(path, tmp_path / "out.safetensors", "student")


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    order = [*CLASS_NAMES[1:], CLASS_NAMES[0]]
    path = tmp_path / "file.pth"
    torch.save({"meta": {"config": f"map_classes = {order}\nlr = 1"}, "state_dict": SMALL}, path)
    with pytest.raises(BridgeTAError, match=r"for the classes ped_crossing, .*, in another order"):
        read_checkpoint(path)
    torch.save({"meta": {"config": f"map_classes = {list(CLASS_NAMES)}"}, "state_dict": SMALL}, path)
    assert read_checkpoint(path).network == "camera"


def test_tensors_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    tensors = full()
    del tensors[f"{CAMERA}backbone.norm2.weight"]
    tensors["decoder.neck.extra"], tensors["heads.map.classifier.6.bias"] = torch.ones(1), torch.ones(7)
    path = save_checkpoint(tmp_path / "file.pth", tensors)
    problems = r"neck.extra is left over; .*norm2.weight is missing; heads.map.classifier.6.bias is \[7\], not \[6\]"
    with pytest.raises(BridgeTAError, match=problems):
        import_checkpoint(path, tmp_path / "out.safetensors", "student")
    assert not (tmp_path / "out.safetensors").exists()


def test_numbers_that_are_not_finite_are_named() -> None:
    checkpoint = Checkpoint(Path("file.pth"), {"theirs": torch.tensor([1.0, torch.nan])}, "")
    with pytest.raises(BridgeTAError, match=r"file.pth: holds numbers that are not finite, e.g. in theirs"):
        take(checkpoint, [Entry("ours", "theirs", (2,))])


@pytest.fixture(scope="module")
def camera() -> CameraBranch:
    experiment = load(Experiment, CONFIGURATION)
    with torch.device("meta"):
        return Student(experiment.model, experiment.grid, pretrained=False).camera


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frustum": frustum(352, 128)}, "images of 352x128, not of 704x256"),
        ({"frustum": frustum(704, 256)[:59]}, "lifts to other depths"),
        ({"frustum": torch.ones(3)}, "lacks encoders.camera.vtransform.frustum"),
        ({"dx": torch.tensor([0.3, 0.3, 20.0])}, r"cells than .* 0\.4 m"),
        ({"bx": torch.tensor([-50.0, -51.0, 0.0])}, r"cells than .* 0\.4 m"),
    ],
)
def test_a_lift_of_other_images_depths_or_cells_is_named(
    camera: CameraBranch, change: dict[str, Tensor], message: str
) -> None:
    tensors = geometry() | {f"{TRANSFORM}{name}": value for name, value in change.items()}
    check_frustum(Checkpoint(Path("file.pth"), geometry(), ""), camera)
    with pytest.raises(BridgeTAError, match=message):
        check_frustum(Checkpoint(Path("file.pth"), tensors, ""), camera)


@pytest.mark.parametrize(
    ("tensors", "role", "message"),
    [
        (SMALL, "teacher", "is the camera-only network, which cannot be a teacher. Import it --as student"),
        (make_swin(), "student", "is a Swin backbone, which cannot be a student. Import it --as backbone"),
        (SMALL, "friend", "--as friend is not one of student, teacher, backbone"),
    ],
)
def test_a_network_in_a_role_that_it_cannot_have_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], role: str, message: str
) -> None:
    path = save_checkpoint(tmp_path / "file.pth", tensors)
    with pytest.raises(BridgeTAError, match=message) as caught:
        import_checkpoint(path, tmp_path / "out", role)
    assert caught.value.exit_code == 2
