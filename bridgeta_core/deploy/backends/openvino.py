"""OpenVINO: the fastest on CPUs from Intel and AMD; bfloat16 where the processor has it, int8 everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.deploy.backends.base import Network, check_shapes, explain_failure, explain_missing
from bridgeta_core.deploy.backends.packages import load_openvino_core


class OpenVinoBackend:
    """The ONNX graphs, compiled by OpenVINO for this processor with as many threads as PyTorch has."""

    name = "openvino"
    recordable = False

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        try:
            core = load_openvino_core()
        except ImportError as error:
            raise explain_missing(self.name, "openvino", error) from error
        self.device, self.precision = device, precision
        settings = {
            # By default OpenVINO computes in bfloat16 wherever the processor can; here that is asked for by name.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # A pinned thread waits for its core, even while decoding or DDS have that one and another is free.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._image, self._bev = (
                core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
                for data in map(network.find_graphs(precision).__getitem__, ("image", "bev"))
            )
        except RuntimeError as error:
            raise explain_failure(self.name, "compile the network", error) from error
        check_shapes(network, self)

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        found = self._infer(self._image, images=images, ground=ground)
        return torch.from_numpy(found["depth"]), torch.from_numpy(found["features"])

    def decode(self, lifted: Tensor) -> Tensor:
        return torch.from_numpy(self._infer(self._bev, lifted=lifted)["probabilities"].copy())

    def _infer(self, request: Any, **inputs: Tensor) -> dict[str, NDArray[np.float32]]:
        """Run a graph. The results are views of the request's memory."""
        # OpenVINO leaves out an input that nothing depends on: the ground, of networks without a ground prior.
        known = {port.get_any_name() for port in request.model_inputs}
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items() if name in known}
        try:
            found = request.infer(arrays, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise explain_failure(self.name, "run the network", error) from error
        return {name: found[name] for name in (port.get_any_name() for port in found)}
