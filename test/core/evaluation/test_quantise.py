"""Weights with int8 graphs: made of real samples, close to float32, and never those of other weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_networks import GRID, rig

from bridgeta_core.deploy.backends.graphs import hash_student
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import load_student, read_int8_graphs, save_weights
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.evaluation.quantise import quantise_weights
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"


@pytest.fixture(scope="module")
def plain(two_scenes, tmp_path_factory):
    """Weights of a random student with the cameras of the small root."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_weights(path, Student(two_scenes().model, GRID).eval(), ["CAM_FRONT", "CAM_BACK"], {"steps": 7})
    return path


@pytest.fixture(scope="module")
def quantised(plain, small_root):
    path = plain.with_name("int8.safetensors")
    assert quantise_weights(plain, small_root, VERSION, path, samples=3) == 3
    return path


def change(path, target, edit):
    """Apply `edit(tensors)` to a copy of a weights file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    edit(tensors)
    save_file(tensors, target, metadata)
    return target


def test_the_float_weights_and_their_description_stay(plain, quantised):
    (before, about), (after, again) = load_student(plain), load_student(quantised)
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert again.cameras == about.cameras
    assert again.provenance["steps"] == 7
    assert again.provenance["int8"]["samples"] == 3


def test_every_convolution_computes_with_eight_bits(quantised):
    graphs = read_int8_graphs(quantised, hash_student(load_student(quantised)[0]))
    for data in graphs.values():
        nodes = onnx.load_from_string(data).graph.node
        made_by = {output: node.op_type for node in nodes for output in node.output}
        convolutions = [node for node in nodes if node.op_type == "Conv"]
        assert len(convolutions) > 3
        assert {made_by[name] for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_results_are_close_to_those_of_float32(quantised, backend):
    float32, int8 = Runtime(quantised, "cpu"), Runtime(quantised, "cpu", "int8", backend)
    size = float32.image
    images = np.random.default_rng(0).integers(0, 256, (2, size.height, size.width, 3), dtype=np.uint8)
    expected, found = float32.infer(images, rig(2)), int8.infer(images, rig(2))
    assert 0 < np.abs(found - expected).max() < 0.1
    assert np.abs(found - expected).mean() < 0.02


def test_what_a_vehicle_runs_can_be_scored(quantised, small_root):
    options = {"device": "cpu", "workers": 0}
    reference = evaluate_weights(quantised, small_root, VERSION, **options)
    float32 = evaluate_weights(quantised, small_root, VERSION, backend="openvino", **options)
    int8 = evaluate_weights(quantised, small_root, VERSION, backend="openvino", precision="int8", **options)
    assert (reference.subject, int8.subject) == ("int8", "int8 (openvino, int8)")
    np.testing.assert_allclose(float32.iou.best, reference.iou.best, atol=1e-3)
    np.testing.assert_allclose(int8.iou.best, reference.iou.best, atol=0.05)


def test_weights_without_int8_graphs_say_how_to_make_them(plain):
    with pytest.raises(BridgeTAError, match=r"hold no int8 graphs\. Make weights that hold them: bridgeta quantise"):
        Runtime(plain, "cpu", "int8", "openvino")


def test_graphs_of_other_weights_are_refused(quantised, tmp_path):
    def train_on(tensors):
        name = next(name for name in tensors if name.endswith("classify.bias"))
        tensors[name] = tensors[name] + 0.1

    path = change(quantised, tmp_path / "other.safetensors", train_on)
    assert Runtime(path, "cpu").precision == "float32"
    with pytest.raises(BridgeTAError, match=r"other\.safetensors: holds int8 graphs of other weights. Make them again"):
        Runtime(path, "cpu", "int8", "openvino")


@pytest.mark.parametrize("damage", ["missing", "of another type"])
def test_damaged_int8_graphs_are_one_line(quantised, tmp_path, damage):
    def break_it(tensors):
        graph = tensors.pop("int8/bev")
        if damage == "of another type":
            tensors["int8/bev"] = graph[:16].to(torch.bfloat16)

    path = change(quantised, tmp_path / "damaged.safetensors", break_it)
    with pytest.raises(BridgeTAError, match="holds damaged int8 graphs"):
        Runtime(path, "cpu", "int8", "openvino")


def test_the_weights_themselves_are_not_replaced(plain, small_root):
    with pytest.raises(BridgeTAError, match="the output would replace"):
        quantise_weights(plain, small_root, VERSION, plain)
