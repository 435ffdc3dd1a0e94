"""Replay a network on a GPU without the cost of launching its kernels one by one."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from bridgeta_core.deploy.backends.memory import is_out_of_memory
from bridgeta_core.utils.errors import read_message

logger = logging.getLogger(__name__)

_WARM_UPS = 3  # calls before recording: kernels are compiled and chosen in the first ones


class GraphCache:
    """Functions of one tensor as CUDA graphs, recorded at the first call of each key; the `size` last used are kept.

    A small network needs less time to compute on a GPU than Python needs to launch its kernels; a graph is launched
    at once. All calls must have inputs of one shape and type. A result is valid until the next call. What cannot be
    recorded runs as it is, and a warning says so once. Raises what the function raises, such as a lack of memory.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._recorded: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._usable = True

    def __call__(self, key: Hashable, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """Return `function(value)`; equal keys must mean equal functions."""
        if self._usable and key not in self._recorded:
            try:
                self._recorded[key] = _Recording(function, value)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._usable = False
                reason = read_message(error)
                logger.warning("the network cannot be recorded as a CUDA graph and runs slower (%s)", reason)
            if len(self._recorded) > self._size:
                self._recorded.popitem(last=False)
        if not self._usable:
            return function(value)
        self._recorded.move_to_end(key)
        return self._recorded[key](value)


class _Recording:
    """A recorded call with the memory of its input and its result."""

    def __init__(self, function: Callable[[Tensor], Tensor], value: Tensor) -> None:
        self._input = value.clone()
        side, current = torch.cuda.Stream(value.device), torch.cuda.current_stream(value.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(self._input)
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the GPU meanwhile.
        with torch.cuda.device(value.device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(self._input)

    def __call__(self, value: Tensor) -> Tensor:
        self._input.copy_(value)
        self._graph.replay()
        return self._result
