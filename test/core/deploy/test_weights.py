"""Weights files: what goes in comes out, and what does not fit is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from memory_limit import little_memory
from safetensors import safe_open
from safetensors.torch import save_file
from small_networks import GRID, OPTIONS, small_student

import bridgeta_core.deploy.weights as weights
from bridgeta_core.deploy.teacher_weights import load_teacher
from bridgeta_core.deploy.weights import WeightsInfo, find_weights, load_student, read_info, save_weights
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

CAMERAS = ("LEFT", "RIGHT")
ORIGIN = {"command": "bridgeta train student tiny", "steps": 12, "metrics": {"mIoU": 0.5}}


def make_student() -> Student:
    torch.manual_seed(0)
    config = small_student({"margin": 1.25, "mean": [0.4, 0.5, 0.6]}, {"downsample": 2, "ground_prior": True})
    return Student(config, GRID)


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


@pytest.fixture
def path(tmp_path: Path, student: Student) -> Path:
    target = tmp_path / "student.safetensors"
    save_weights(target, student, CAMERAS, ORIGIN)
    return target


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    """Apply `change(tensors, metadata)` to a file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def test_the_same_weights_have_the_same_bytes_in_every_process(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "again.safetensors"
    code = "import sys, test_weights as t; t.save_weights(t.Path(sys.argv[1]), t.make_student(), t.CAMERAS, t.ORIGIN)"
    # This process has another seed of hashes, by which sets are ordered.
    own = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", code, file], check=True, env={**os.environ, **own})
    assert file.read_bytes() == path.read_bytes()


def test_a_file_that_pytorch_cannot_map_is_one_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: str) -> object:
        if options["framework"] == "pt":  # PyTorch opens the file itself
            raise RuntimeError(f"unable to open file <{path}> in read-only mode: Permission denied (13)")
        return safe_open(path, **options)

    monkeypatch.setattr(weights, "safe_open", refuse)
    with pytest.raises(BridgeTAError, match=r"cannot be read \(unable to open file"):
        load_student(path)


def test_the_tensors_of_a_file_are_aligned(path: Path) -> None:
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_a_round_trip_keeps_every_bit_and_every_word(path: Path, student: Student) -> None:
    loaded, info = load_student(path)
    for name, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert not loaded.training
    assert info.model == student.config == loaded.config
    assert info.model.image.mean == [0.4, 0.5, 0.6]
    assert (info.grid, info.classes, info.cameras, info.provenance) == (GRID, CLASS_NAMES, CAMERAS, ORIGIN)


def test_the_loaded_student_computes_the_same(path: Path, student: Student) -> None:
    loaded, _ = load_student(path)
    k = torch.tensor([[32.0, 0, 31.5], [0, 32, 15.5], [0, 0, 1]])[None, None]
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])[None, None]
    images = torch.randint(0, 256, (1, 1, 3, 32, 64), dtype=torch.uint8)
    student.eval()
    assert torch.equal(loaded(images, loaded.plan(k, pose)).Z, student(images, student.plan(k, pose)).Z)


def test_loading_asks_no_hub(tmp_path: Path) -> None:
    student = make_student()
    student.config.backbone.pretrained = "somebody/nothing-of-this-name"
    save_weights(tmp_path / "a.safetensors", student, CAMERAS, {})
    loaded, info = load_student(tmp_path / "a.safetensors")
    assert info.model.backbone.pretrained == "somebody/nothing-of-this-name"
    assert loaded.parameter_count == student.parameter_count


@pytest.mark.parametrize(
    ("stored", "thresholds"),
    [
        ({"divider": 0.35, "walkway": 0.4}, (0.5, 0.5, 0.4, 0.5, 0.5, 0.35)),
        ({"divider": None, "walkway": 7.0, "stop_line": "0.4"}, (0.5,) * 6),
        ([0.4], (0.5,) * 6),
    ],
)
def test_thresholds_are_those_of_the_validation_where_it_has_them(
    tmp_path: Path, stored: object, thresholds: tuple[float, ...]
) -> None:
    assert WeightsInfo(make_student().config, GRID, CLASS_NAMES, CAMERAS).thresholds == (0.5,) * 6
    save_weights(tmp_path / "a.safetensors", make_student(), CAMERAS, {"validation": {"thresholds": stored}})
    assert read_info(tmp_path / "a.safetensors").thresholds == thresholds


@pytest.mark.parametrize(
    ("stored", "unlearned"), [([], []), (["divider", "moon"], ["divider"]), (None, []), ("divider", []), (3, [])]
)
def test_classes_are_learned_unless_the_training_data_did_not_know_them(
    tmp_path: Path, stored: object, unlearned: list[str]
) -> None:
    save_weights(tmp_path / "a.safetensors", make_student(), CAMERAS, {"unknown_classes": stored})
    info = read_info(tmp_path / "a.safetensors")
    assert [name for name, learned in zip(CLASS_NAMES, info.learned, strict=True) if not learned] == unlearned


def test_the_info_can_be_read_alone(path: Path, student: Student) -> None:
    info = read_info(path)
    assert info.model == student.config
    assert info.provenance == ORIGIN


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a whole safetensors"), (b"PK\x03\x04 a zip of pickles", "not a whole safetensors")],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BridgeTAError, match=message):
        load_student(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BridgeTAError, match="not a whole safetensors file"):
        load_student(path)


def drop_metadata(tensors: dict, metadata: dict) -> None:
    metadata.clear()


def newer_format(tensors: dict, metadata: dict) -> None:
    metadata["format"] = "bridgeta-student/7"


def other_class(tensors: dict, metadata: dict) -> None:
    metadata["classes"] = json.dumps([*CLASS_NAMES[:5], "tram_track"])


def other_order(tensors: dict, metadata: dict) -> None:
    metadata["classes"] = json.dumps(CLASS_NAMES[::-1])


def no_cameras(tensors: dict, metadata: dict) -> None:
    del metadata["cameras"]


def broken_json(tensors: dict, metadata: dict) -> None:
    metadata["grid"] = "{"


def unknown_setting(tensors: dict, metadata: dict) -> None:
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | {"wings": 2})


def missing_tensor(tensors: dict, metadata: dict) -> None:
    del tensors["head.classify.bias"]


def unexpected_tensor(tensors: dict, metadata: dict) -> None:
    tensors["tail"] = torch.zeros(2)


def misshapen_tensor(tensors: dict, metadata: dict) -> None:
    tensors["head.classify.bias"] = torch.zeros(7)


def retyped_tensor(tensors: dict, metadata: dict) -> None:
    tensors["head.classify.bias"] = torch.zeros(6, dtype=torch.float64)


def exploded_tensor(tensors: dict, metadata: dict) -> None:
    tensors["head.classify.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_metadata, "without BridgeTA's description"),
        (newer_format, "format bridgeta-student/7, this version reads bridgeta-student/1"),
        (other_class, "differ in divider, tram_track"),
        (other_order, "their order differs"),
        (no_cameras, "lacks 'cameras'"),
        (broken_json, "damaged description"),
        (unknown_setting, "wings"),
        (missing_tensor, "head.classify.bias is missing"),
        (unexpected_tensor, "tail is unexpected"),
        (misshapen_tensor, r"head.classify.bias is \[7\] torch.float32, not \[6\] torch.float32"),
        (retyped_tensor, "head.classify.bias is .*float64, not"),
        (exploded_tensor, "not finite, e.g. in head.classify.bias"),
    ],
)
def test_what_does_not_fit_is_named_with_the_file(path: Path, change: Callable, message: str) -> None:
    rewrite(path, change)
    with pytest.raises(BridgeTAError, match=message) as caught:
        load_student(path)
    assert str(path) in str(caught.value)


def change_settings(key: str, **changes: object) -> Callable[[dict, dict], None]:
    """Return a change of nested settings in the description; a double underscore leads into a group."""

    def change(tensors: dict, metadata: dict) -> None:
        content = json.loads(metadata[key])
        for name, value in changes.items():
            *groups, last = name.split("__")
            holder = content
            for group in groups:
                holder = holder[group]
            holder[last] = value
        metadata[key] = json.dumps(content)

    return change


def set_text(key: str, text: str) -> Callable[[dict, dict], None]:
    return lambda tensors, metadata: metadata.update({key: text})


WIDE = {**OPTIONS, "hidden_sizes": [4_000_000, 8, 16, 16]}
LARGE = {**OPTIONS, "embedding_size": 60_000, "hidden_sizes": [60_000, 60_000, 60_000, 60_000]}
MANY = {**OPTIONS, "depths": [60_000, 1, 1, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_settings("model", backbone__options=WIDE), "hidden_sizes has numbers beyond 65,536"),
        (change_settings("model", backbone__options=LARGE), "its settings ask for more"),
        (change_settings("model", backbone__options=MANY), "its settings ask for more"),
        (change_settings("model", decoder__width=16384), "its settings ask for more"),
        (change_settings("model", decoder__width=4_000_000), "must be between 8 and 16384"),
        (change_settings("model", decoder__stages=[16] * 100_000), "more than 5,000 values"),
        (change_settings("model", decoder__stages=[]), "stages must not be empty"),
        (change_settings("model", backbone__options={**OPTIONS, "hidden_act": "wild"}), "resnet cannot be built"),
        (change_settings("model", backbone__architecture="${oc.env:HOME}"), "is a reference"),
        (change_settings("model", image__width=256_000), "must be between 32 and 4096"),
        (change_settings("model", image__width=4096, image__height=4096, lift__depth_step=0.05), "depth bins"),
        (change_settings("model", image__mean=[0.5]), "a value for each of R, G and B"),
        (change_settings("model", lift__depth_max=1e20), "must be between 1 and 1000"),
        (change_settings("model", lift__grid__x_max=10**400), "more than 64 bits"),
        (change_settings("grid", x_min=-5e4, x_max=5e4, y_min=-5e4, y_max=5e4), "more than 4,194,304 cells"),
        (change_settings("grid", resolution=None), "resolution"),
        (set_text("cameras", "[]"), "cameras are no list of 1 to 64"),
        (set_text("cameras", json.dumps([f"C{i}" for i in range(1000)])), "cameras are no list of 1 to 64"),
        (set_text("cameras", '["LEFT", "LEFT"]'), "cameras are no different names"),
        (set_text("cameras", '"LEFT"'), "cameras are no list"),
        (set_text("classes", "[[1]]"), "classes are no different names"),
        (set_text("provenance", "[[1]]"), "damaged description"),
        (set_text("model", "[" * 100_000), "nested too deeply"),
        (set_text("grid", '{"x_min": ' + "[" * 500 + "]" * 500 + "}"), "nested too deeply"),
        (set_text("model", "3"), "settings of another kind"),
        (set_text("grid", "null"), "settings of another kind"),
    ],
)
def test_a_description_gets_no_memory_that_the_file_does_not_fill(path: Path, change: Callable, message: str) -> None:
    rewrite(path, change)
    with little_memory(), pytest.raises(BridgeTAError, match=message) as caught:
        load_student(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_earlier_file(path: Path, student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def disk_full(target: Path, data: bytes) -> None:
        with target.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(BridgeTAError, match="No space left"):
        save_weights(path, student, CAMERAS, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_shipped_weights_are_found_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.SHIPPED, "pocket", path)
    assert find_weights("pocket") == path
    assert find_weights(path) == path
    with pytest.raises(BridgeTAError, match=r"no such weights file.*pocket"):
        find_weights("pockets")


@pytest.mark.parametrize("name", sorted(weights.SHIPPED))
def test_every_shipped_file_loads_and_is_small(name: str) -> None:
    _, info = load_teacher(name) if name.endswith("_teacher") else load_student(name)
    assert weights.SHIPPED[name].stat().st_size <= 8e6
    assert info.provenance["command"]
    roots = info.provenance["data"]["train_root"]
    for root in [roots] if isinstance(roots, str) else roots:
        assert "/" not in root.removeprefix("data/")  # of the project, not of a machine


def test_without_the_memory_to_run_a_network_none_is_built(path: Path) -> None:
    with little_memory(128 * 2**20), pytest.raises(MemoryError, match="no 384 MiB for the network's layers"):
        load_student(path)
