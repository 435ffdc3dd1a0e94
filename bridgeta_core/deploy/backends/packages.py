"""Import the packages of others that compute networks, and keep them from reporting to their makers.

A vehicle sends nothing that its owner has not asked for, and writes no number of itself into a home.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

from bridgeta_core.utils.machine import require_memory

_MEMORY = 192  # MiB that a small network needs at least; without them these packages end in a segmentation fault


def import_onnxruntime() -> Any:
    """Import onnxruntime. Raises ImportError where it is not installed, and MemoryError where memory is short.

    Its builds of 2026 report machine, networks and times to Microsoft from Linux too, unless this variable is there
    when the first session is made.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    require_memory(_MEMORY, "ONNX Runtime")
    return importlib.import_module("onnxruntime")


def import_openvino() -> Any:
    """Import openvino. Raises ImportError where it is not installed, and MemoryError where memory is short.

    Its import and each conversion report to Google Analytics by the package openvino_telemetry, which it can do
    without.
    """
    require_memory(_MEMORY, "OpenVINO")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what Python takes for not installed
    return importlib.import_module("openvino")


def load_openvino_core() -> Any:
    """Load the core of OpenVINO, one for the whole process. Raises ImportError where it is not installed.

    The CPU plugin of a core gives the thread that loads it another stack for signal handlers, and the former one back
    when the core ends. Of two cores the former may have ended first: the thread is left with a stack that is gone, and
    the next signal that has a handler, such as Ctrl-C, is a segmentation fault.
    """
    return _make_core(import_openvino())


@functools.cache
def _make_core(openvino: Any) -> Any:
    return openvino.Core()
