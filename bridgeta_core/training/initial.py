"""Going on from weights that exist: fine-tuning on other data, another label grid, or a longer schedule."""

from __future__ import annotations

from torch import nn

from bridgeta_core.utils.errors import BridgeTAError


def start_from(network: nn.Module, trained: nn.Module, path: str) -> None:
    """Give `network` the weights of `trained`, which were read from `path`; their label grids may differ.

    Raises BridgeTAError (exit code 2) when they are of another architecture.
    """
    own, other = network.state_dict(), trained.state_dict()
    unlike = sorted(n for n in own.keys() | other.keys() if n not in own or n not in other or _unlike(own[n], other[n]))
    if unlike:
        raise BridgeTAError(
            f"train.initial is of another architecture: {len(unlike)} tensors differ, e.g. {unlike[0]}",
            where=path,
            fix="Train with the model settings that its description has, or without train.initial",
            exit_code=2,
        )
    network.load_state_dict(other)


def _unlike(one: object, other: object) -> bool:
    return getattr(one, "shape", None) != getattr(other, "shape", None)
