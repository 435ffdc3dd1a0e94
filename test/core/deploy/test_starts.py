"""The notes of earlier starts: the same choice without a trial and without the library of the backbones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import pictures, rig, trained_student

from bridgeta_core.deploy import starts
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import load_student, save_weights
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import cache_folder

# A start whose graphs and choice are in the cache.
SECOND_START = """
import sys
from bridgeta_core.deploy.runtime import Runtime
runtime = Runtime(sys.argv[1], "cpu", backend="auto")
print(runtime.backend, "transformers" in sys.modules)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save_weights(path, trained_student(), ("a", "b"), {})
    return path


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes of this test alone, on a machine where OpenVINO is the fastest; the graphs are exported once for all."""
    monkeypatch.setattr(starts, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("bridgeta_core.deploy.backends.choose._MARGIN", 1.0)
    monkeypatch.setattr(
        "bridgeta_core.deploy.backends.choose._try",
        lambda network, backends, precision: ({b: float(b.name != "openvino") for b in reversed(backends)}, []),
    )
    return tmp_path / "cache" / "starts"


def forbid_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "choose_backend", lambda *_: pytest.fail("the note was not used"))


def test_the_second_start_makes_the_choice_of_the_first(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Runtime(weights, "cpu", backend="auto")
    forbid_trials(monkeypatch)
    second = Runtime(weights, "cpu", backend="auto")
    assert (first.backend, second.backend) == ("openvino", "openvino")
    assert second.reason.startswith(f"{first.reason}; tried on 20")
    np.testing.assert_array_equal(second.infer(pictures(2), rig(2)), first.infer(pictures(2), rig(2)))


def test_the_second_start_does_without_the_library_of_the_backbones(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "cache_folder", cache_folder)  # that of the other process
    Runtime(weights, "cpu", backend="auto")
    command = [sys.executable, "-c", SECOND_START, weights]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "openvino False\n", done.stderr


def test_a_named_back_end_is_short_to_start_too(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime(weights, "cpu", backend="onnxruntime")
    forbid_trials(monkeypatch)
    monkeypatch.setattr("bridgeta_core.deploy.runtime.load_student", lambda _: pytest.fail("the network was built"))
    again = Runtime(weights, "cpu", backend="onnxruntime")
    assert (again.backend, again.reason) == ("onnxruntime", "as asked for")


@pytest.mark.parametrize("change", ["threads", "weights", "versions"])
def test_what_a_choice_depends_on_makes_it_anew(
    weights: Path, notes: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    Runtime(weights, "cpu", backend="auto")
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    elif change == "versions":
        monkeypatch.setattr(starts.metadata, "version", lambda package: "9.9")
    else:
        student, _ = load_student(weights)
        student.head.classify.weight.data += 1e-3
        weights = tmp_path / "other.safetensors"
        save_weights(weights, student, ("a", "b"), {})
    Runtime(weights, "cpu", backend="auto")
    assert len(list(notes.iterdir())) == 2


def test_a_back_end_that_fails_now_is_chosen_anew(
    weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Runtime(weights, "cpu", backend="auto")
    monkeypatch.setitem(sys.modules, "openvino", None)
    runtime = Runtime(weights, "cpu", backend="auto")
    assert runtime.backend in ("torch", "onnxruntime")
    assert "openvino, fails and is chosen anew: backend openvino: the package openvino is not installed" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"backend": "openvino"}',
        '{"backend": "fastest", "reason": "", "features": [2, 4]}',
        '{"backend": [], "reason": "", "features": [2, 4]}',
        '{"backend": "openvino", "reason": "", "features": [0, 4]}',
        '{"backend": "openvino", "reason": "", "features": [5, 9]}',
    ],
)
def test_a_note_that_makes_no_sense_is_made_anew(weights: Path, notes: Path, content: str) -> None:
    first = Runtime(weights, "cpu", backend="auto")
    (note,) = notes.iterdir()
    before = note.read_text()
    note.write_text(content)
    again = Runtime(weights, "cpu", backend="auto")
    assert (again.backend, again.reason) == (first.backend, first.reason)
    assert json.loads(note.read_text()) == json.loads(before)


def test_without_a_cache_it_starts_all_the_same(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(starts, "cache_folder", lambda: tmp_path / "file" / "cache")
    assert Runtime(weights, "cpu", backend="auto").backend == "openvino"
    assert "the choice of a back end cannot be cached" in caplog.text


def test_weights_that_change_while_they_are_read_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgeta_core.deploy.runtime.hash_stored_student", lambda path, info: "of other weights")
    with pytest.raises(BridgeTAError, match="was changed while it was read"):
        Runtime(weights, "cpu")
