"""The cache of ONNX graphs: written once for a network, checked when read, made anew when damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from small_networks import GRID, small_student

from bridgeta_core.deploy.backends import store
from bridgeta_core.deploy.backends.graphs import hash_student
from bridgeta_core.deploy.backends.store import find_folder, load_graphs
from bridgeta_core.model.student import Student


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Student:
    """A student with a cache of its own, whose parts are 'exported' as their names."""
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "export_onnx", lambda part, path: path.write_bytes(part.NAME.encode()))
    return Student(small_student(), GRID).eval()


def load(student: Student) -> dict[str, bytes]:
    return load_graphs(hash_student(student), lambda: student)


EXPECTED = {"image": b"image", "bev": b"bev"}


def forbid_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "export_onnx", lambda part, path: pytest.fail("the cache was not used"))


def test_graphs_are_exported_once(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(student) == EXPECTED
    forbid_export(monkeypatch)
    assert load(student) == EXPECTED


def test_other_weights_have_other_graphs(student: Student) -> None:
    other = Student(small_student(), GRID).eval()
    other.head.classify.weight.data += 1e-3
    assert find_folder(hash_student(student)) != find_folder(hash_student(other))


@pytest.mark.parametrize("file", ["image.onnx", "bev.onnx", "digests.json"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_damaged_files_are_made_anew(
    student: Student, file: str, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(student)
    path = find_folder(hash_student(student)) / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-1] if damage == "truncated" else bytes([data[0] ^ 1]) + data[1:])
    assert load(student) == EXPECTED
    assert "the cached graphs are damaged and made anew" in caplog.text
    forbid_export(monkeypatch)
    assert load(student) == EXPECTED


def test_without_a_cache_every_start_makes_them(
    student: Student, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "file" / "cache"))
    assert load(student) == load(student) == EXPECTED
    assert "cannot be cached" in caplog.text


def test_the_digests_are_sha256(student: Student) -> None:
    load(student)
    text = (find_folder(hash_student(student)) / "digests.json").read_text()
    assert all(hashlib.sha256(data).hexdigest() in text for data in EXPECTED.values())
