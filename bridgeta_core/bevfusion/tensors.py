"""Take the tensors of a checkpoint over under other names, and account for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bridgeta_core.bevfusion.checkpoint import Checkpoint
from bridgeta_core.utils.errors import BridgeTAError, join_first


def keep(tensor: Tensor) -> Tensor:
    """Take a tensor as it is."""
    return tensor


def mirror(tensor: Tensor) -> Tensor:
    """Mirror the rows of a kernel over the bird's-eye view, `[outputs, inputs, y, x]`; other tensors stay.

    BEVFusion's views are [x, y] in the LiDAR's frame, x to the right and y ahead; ours are [y, x], x ahead and y to the
    left. So what is a quarter turn on the ground is a mirror image of the rows in memory, and exact.
    """
    return tensor.flip(2) if tensor.ndim == 4 else tensor


@dataclass(frozen=True)
class Entry:
    """A tensor of ours, the one of the checkpoint that it is made of, the latter's shape, and how it is made."""

    target: str
    source: str
    shape: tuple[int, ...]
    change: Callable[[Tensor], Tensor] = keep


def list_entries(
    wanted: Mapping[str, Tensor], modules: Mapping[str, str], change: Callable[[Tensor], Tensor] = keep
) -> list[Entry]:
    """List the entries of the tensors below some modules of ours; `modules` maps them to those of the checkpoint."""
    return [
        Entry(name, source + name.removeprefix(target), tuple(value.shape), change)
        for target, source in modules.items()
        for name, value in wanted.items()
        if name.startswith(f"{target}.")
    ]


def take(checkpoint: Checkpoint, entries: Iterable[Entry], known: Collection[str] = ()) -> dict[str, Tensor]:
    """Make the tensors of `entries` by the names of their targets, as float32 (counters stay).

    `known` are names in the checkpoint that need no entry. Raises BridgeTAError that names what the checkpoint lacks,
    what is left over, what has another shape, and numbers that are not finite.
    """
    entries, stored = list(entries), checkpoint.tensors
    sources = {entry.source: entry.shape for entry in entries}
    problems = [f"{name} is missing" for name in sources.keys() - stored.keys()]
    problems += [f"{name} is left over" for name in stored.keys() - sources.keys() - set(known)]
    problems += [
        f"{name} is {list(stored[name].shape)}, not {list(shape)}"
        for name, shape in sources.items()
        if name in stored and tuple(stored[name].shape) != shape
    ]
    if problems:
        raise BridgeTAError(
            f"does not fit the network that it is recognised as: {join_first(sorted(problems), separator='; ')}",
            where=checkpoint.path,
            fix="Name a checkpoint of the published configuration",
        )
    result = {entry.target: _to_plain(entry.change(stored[entry.source])) for entry in entries}
    broken = [name for name, value in result.items() if not torch.isfinite(value).all()]
    if broken:
        source = next(entry.source for entry in entries if entry.target == broken[0])
        raise BridgeTAError(f"holds numbers that are not finite, e.g. in {source}", where=checkpoint.path)
    return result


def _to_plain(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
