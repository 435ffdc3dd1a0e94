"""ONNX Runtime: on CPUs, and on NVIDIA GPUs by its CUDA and TensorRT providers (the package onnxruntime-gpu)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.deploy.backends.base import Network, check_shapes, explain_failure, explain_missing
from bridgeta_core.deploy.backends.memory import is_out_of_memory
from bridgeta_core.deploy.backends.packages import import_onnxruntime
from bridgeta_core.deploy.backends.store import find_folder
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import discard

logger = logging.getLogger(__name__)

_NUMPY = {torch.float32: np.float32, torch.uint8: np.uint8}


class OnnxRuntimeBackend:
    """The ONNX graphs in sessions of ONNX Runtime that read and write PyTorch's memory."""

    name = "onnxruntime"
    recordable = False

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        try:
            self._runtime = import_onnxruntime()
        except ImportError as error:
            raise explain_missing(self.name, "onnxruntime", error) from error
        self.device, self.precision = device, precision
        self._sessions = self._open(network)
        check_shapes(network, self)

    def _list_providers(self) -> list[tuple[str, dict[str, Any]]]:
        """List what computes the nodes, in the order of preference, with its options."""
        if self.device.type == "cpu":
            return [("CPUExecutionProvider", {})]
        return [("CUDAExecutionProvider", {"device_id": self.device.index or 0}), ("CPUExecutionProvider", {})]

    def _open(self, network: Network) -> dict[str, Any]:
        """Open a session for each graph. Raises BridgeTAError where the first provider is not usable."""
        providers = self._list_providers()
        first = providers[0][0]
        if first not in self._runtime.get_available_providers():
            fix = "pip install onnxruntime-gpu in place of onnxruntime, or use the backend auto or torch"
            raise BridgeTAError(f"ONNX Runtime has no {first} here", where=f"backend {self.name}", fix=fix, exit_code=2)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Its threads would spin while the lift computes, which then takes three times as long on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; they are raised as well
        sessions = {}
        for name, data in network.find_graphs(self.precision).items():
            try:
                sessions[name] = self._runtime.InferenceSession(data, options, providers=providers)
            except Exception as error:  # its errors have no common type of their own
                raise explain_failure(self.name, "load the network", error) from error
            if sessions[name].get_providers()[0] != first:  # it falls back to the CPU without a word
                fix = "Install the CUDA libraries that it asks for, or use the backend torch"
                raise BridgeTAError(f"{first} does not start on {self.device}", where=f"backend {self.name}", fix=fix)
        return sessions

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        depth, features = self._run("image", {"images": images, "ground": ground}, len(images))
        return depth, features

    def decode(self, lifted: Tensor) -> Tensor:
        return self._run("bev", {"lifted": lifted})[0]

    def _run(self, graph: str, inputs: Mapping[str, Tensor], cameras: int = 0) -> list[Tensor]:
        session = self._sessions[graph]
        binding = session.io_binding()
        kind, index = self.device.type, self.device.index or 0
        held = [value.contiguous() for value in inputs.values()]  # alive until the session has read them
        for name, value in zip(inputs, held, strict=True):
            binding.bind_input(name, kind, index, _NUMPY[value.dtype], tuple(value.shape), value.data_ptr())
        outputs = []
        for output in session.get_outputs():
            shape = [cameras if isinstance(size, str) else size for size in output.shape]
            outputs.append(torch.empty(shape, device=self.device))
            binding.bind_output(output.name, kind, index, np.float32, shape, outputs[-1].data_ptr())
        if kind == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime computes on a stream of its own
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            raise explain_failure(self.name, "run the network", error) from error
        return outputs


class TensorRtBackend(OnnxRuntimeBackend):
    """ONNX Runtime with NVIDIA's TensorRT, whose engines are built once for each network and GPU and then cached."""

    name = "tensorrt"

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        self._engines = find_folder(network.digest) / f"tensorrt-{precision}"
        try:
            super().__init__(network, device, precision)
        except BridgeTAError as error:
            if not self._engines.exists() or is_out_of_memory(error):
                raise
            logger.warning("%s: the cached engines cannot be used and are built anew (%s)", self._engines, error)
            discard(self._engines)
            super().__init__(network, device, precision)

    def _list_providers(self) -> list[tuple[str, dict[str, Any]]]:
        options = {
            "device_id": self.device.index or 0,
            "trt_fp16_enable": self.precision == "float16",
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(self._engines),
        }
        return [("TensorrtExecutionProvider", options), *super()._list_providers()]
