"""Quantise the two graphs of a student to int8, with the ranges that its numbers have on real images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bridgeta_core.deploy.backends.packages import import_onnxruntime
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import require_memory

_MEMORY = 320  # MiB; the shipped student takes 250

Inputs = Mapping[str, NDArray[Any]]
"""The inputs of one run of a graph, by name."""


def quantise_graph(graph: bytes, samples: Iterable[Inputs], keep_float: Iterable[str] = ()) -> bytes:
    """Quantise the convolutions of an ONNX graph after training, and return the graph with its scales (QDQ).

    Weights have a scale for each output channel; activations are asymmetric between the extremes that the float graph
    takes on `samples`. Convolutions in `keep_float` stay as they are. Raises BridgeTAError (exit code 2) without the
    package onnxruntime.
    """
    try:
        import_onnxruntime()
        from onnxruntime import quantization as tools
    except ImportError as error:
        fix = "pip install onnxruntime onnx onnxscript"
        raise BridgeTAError("quantising needs the package onnxruntime", fix=fix, exit_code=2) from error

    require_memory(_MEMORY, "quantising")

    class Reader(tools.CalibrationDataReader):
        """Hands the samples over one by one."""

        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> Inputs | None:
            return next(self._samples, None)

    with tempfile.TemporaryDirectory() as name, _quiet():
        source, prepared, target = (Path(name) / f"{step}.onnx" for step in ("float", "prepared", "int8"))
        source.write_bytes(graph)
        tools.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        tools.quantize_static(
            prepared,
            target,
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            nodes_to_exclude=list(keep_float),
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            extra_options={"QuantizeBias": True},
        )
        return target.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the advice that the quantiser logs."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
