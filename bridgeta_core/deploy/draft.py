"""Draft the network that a weights file describes: all of its layers, and none of its memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from bridgeta_core.utils.errors import BridgeTAError

_SPARE = 2  # times what the file holds: a backbone may make layers that it drops again


def draft(build: Callable[[], nn.Module], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Build a network on the meta device, where tensors have shapes alone, and return its state.

    Raises BridgeTAError as soon as it has more parameters than the tensors `stored` could fill, however many layers
    are still to come.
    """
    with _limit_parameters(len(stored), sum(tensor.numel() for tensor in stored.values())), torch.device("meta"):
        return dict(build().state_dict())


@contextmanager
def _limit_parameters(tensors: int, numbers: int) -> Iterator[None]:
    """Let this thread register no more parameters, and no larger ones, than are there."""
    made, thread = [0, 0], threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if threading.get_ident() != thread or parameter is None:
            return
        made[0] += 1
        made[1] += parameter.numel()
        if made[0] > _SPARE * tensors or made[1] > _SPARE * numbers:
            raise BridgeTAError(f"it holds {tensors:,} tensors of {numbers:,} numbers, and its settings ask for more")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
