"""Packages of others report nothing to their makers, and leave nothing in the user's home, when we use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from memory_limit import little_memory

from bridgeta_core.deploy.backends.packages import import_onnxruntime, import_openvino

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PACKAGE = Path(__file__).resolve().parents[4] / "bridgeta_core"
GRAPH = """
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
node = helper.make_node("Relu", ["x"], ["y"])
graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
"""
SESSIONS = {
    "onnxruntime": """
from bridgeta_core.deploy.backends.packages import import_onnxruntime
import_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])
""",
    "openvino": """
import pathlib
from bridgeta_core.deploy.backends.packages import import_openvino
pathlib.Path("g.onnx").write_bytes(data)
openvino = import_openvino()
openvino.compile_model(openvino.convert_model("g.onnx"), "CPU")
""",
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_writes_nothing_into_home_or_tmp(tmp_path, name):
    home, tmp = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    tmp.mkdir()
    environment = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k and k not in ("CI", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "TMPDIR": str(tmp)}
    subprocess.run([sys.executable, "-c", GRAPH + SESSIONS[name]], cwd=tmp_path, env=environment, check=True)
    assert [*home.rglob("*"), *(path for path in tmp.rglob("*") if path.is_file())] == []


def test_nothing_else_imports_them():
    pattern = re.compile(r"^\s*(import|from) (onnxruntime|openvino)\b", re.MULTILINE)
    found = {path.name for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text())}
    # One calls import_onnxruntime first; the other is a program of its own, without this package.
    assert found == {"quantise.py", "example.py"}


@pytest.mark.parametrize("load", [import_onnxruntime, import_openvino])
def test_where_memory_is_short_a_package_is_not_begun_with(load):
    with little_memory(64 * 2**20), pytest.raises(MemoryError, match="no 192 MiB for"):
        load()
