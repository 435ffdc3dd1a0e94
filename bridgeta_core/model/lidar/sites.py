"""Where a sparse volume is active, and which active voxels a convolution connects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bridgeta_core.utils.errors import BridgeTAError

CENTRE = 13
"""The middle of the 27 places of a 3x3x3 kernel, laid out x, y, z."""

_HALF = [(0, 1), (1, -1), (1, 0), (1, 1)]  # dx, dy of the columns after a voxel's own, in the order of the kernel
_LARGEST = 2**62

Size = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class KernelMap:
    """The pairs of active voxels that a kernel connects: for some of its places `k`, the rows of the input `[n]` and
    those of the output `[n]` to which they contribute, each at most once. With `centred` every row of the input also
    contributes to the same row of the output, at the place CENTRE. `outputs` is the number of rows of the output.
    """

    pairs: list[tuple[int, Tensor, Tensor]]
    outputs: int
    centred: bool = False

    @classmethod
    def split(cls, counts: Sequence[int], inputs: Tensor, outputs: Tensor, rows: int) -> KernelMap:
        """Make the map of pairs that lie one place of the kernel after another, `counts` of each."""
        places = zip(inputs.split(list(counts)), outputs.split(list(counts)), strict=True)
        return cls([(k, i, o) for k, (i, o) in enumerate(places) if len(i)], rows)


@dataclass(frozen=True, eq=False)
class Sites:
    """The active voxels of `batch` volumes of `size` voxels (x, y, z), as ascending `keys` `[n]`, int64.

    A key is the voxel's place in the volumes laid out one after another, each with a margin of one voxel on all sides,
    so that the key of a neighbour is a sum and never that of a voxel at another end of the volume.
    """

    keys: Tensor
    size: Size
    batch: int

    @classmethod
    def from_coordinates(cls, coordinates: Tensor, size: Size, batch: int) -> tuple[Sites, Tensor]:
        """Make sites of different voxels `[n, 4]` (sample, x, y, z); return them with the order that sorts these."""
        strides = coordinates.new_tensor(_find_strides(size, batch))
        keys, order = torch.sort(((coordinates + coordinates.new_tensor([0, 1, 1, 1])) * strides).sum(dim=1))
        return cls(keys, size, batch), order

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def coordinates(self) -> list[Tensor]:
        """Sample, x, y and z of every voxel, `[n]` each."""
        rest, parts = self.keys, []
        for stride in _find_strides(self.size, self.batch):
            parts.append(torch.div(rest, stride, rounding_mode="floor"))
            rest = rest - parts[-1] * stride
        return [parts[0], *(part - 1 for part in parts[1:])]

    @cached_property
    def neighbours(self) -> KernelMap:
        """The map of a submanifold 3x3x3 convolution (Graham et al. 2018): its output is active where its input is.

        Every pair is found once, from the voxel with the smaller key, and serves two opposite places of the kernel.
        Voxels of a column lie next to each other, so one search finds all three of them.
        """
        _, along_x, along_y, _ = _find_strides(self.size, self.batch)
        padded = torch.cat([self.keys, self.keys.new_full((1,), _LARGEST)])
        rows = torch.arange(len(self), device=self.keys.device)
        found, places = [padded[1:] == self.keys + 1], [rows + 1]
        for dx, dy in _HALF:
            lowest = self.keys + (dx * along_x + dy * along_y - 1)
            place = torch.searchsorted(self.keys, lowest)
            for dz in range(3):
                match = padded[place] == lowest + dz
                found.append(match)
                places.append(place)
                place = place + match
        half, first = torch.stack(found).nonzero(as_tuple=True)
        second = torch.stack(places)[half, first]
        counts = torch.bincount(half, minlength=len(found)).tolist()
        after = KernelMap.split(counts, second, first, len(self)).pairs
        pairs = [(CENTRE - 1 - k, i, o) for k, o, i in reversed(after)]
        return KernelMap([*pairs, *((CENTRE + 1 + k, i, o) for k, i, o in after)], len(self), centred=True)

    def stride(self, kernel: Size, stride: Size, padding: Size) -> tuple[Sites, KernelMap]:
        """Find the sites and the map of a convolution whose output is active where its kernel meets an active voxel.

        The size of its output is that of a dense convolution. Raises BridgeTAError when that is empty.
        """
        axes = list(zip(self.size, kernel, stride, padding, strict=True))
        x, y, z = ((cells + 2 * p - k) // s + 1 for cells, k, s, p in axes)
        if min(x, y, z) < 1:
            raise BridgeTAError(f"a volume of {self.size} voxels is too small for a kernel of {kernel}")
        size = (x, y, z)
        sample, *places = self.coordinates
        strides = _find_strides(size, self.batch)
        rows = torch.arange(len(self), device=self.keys.device)
        keys, offset, unit = sample * strides[0], torch.zeros_like(rows), 1
        # From the innermost axis outwards, so that the pairs end in the order of the kernel's places.
        for axis in (2, 1, 0):
            _, k, s, p = axes[axis]
            steps = torch.arange(k, device=rows.device)[:, None]
            moved = places[axis][rows] + p - steps
            target = torch.div(moved, s, rounding_mode="floor")
            step, chosen = ((target * s == moved) & (target >= 0) & (target < size[axis])).nonzero(as_tuple=True)
            keys = keys[chosen] + (target[step, chosen] + 1) * strides[axis + 1]
            rows, offset, unit = rows[chosen], offset[chosen] + step * unit, unit * k
        active, outputs = torch.unique(keys, return_inverse=True)
        counts = torch.bincount(offset, minlength=unit).tolist()
        return Sites(active, size, self.batch), KernelMap.split(counts, rows, outputs, len(active))


def _find_strides(size: Size, batch: int) -> tuple[int, int, int, int]:
    """Return how far apart in keys two samples are, and two voxels along x, y and z."""
    x, y, z = (cells + 2 for cells in size)
    if batch * x * y * z >= _LARGEST:
        raise BridgeTAError(f"{batch} volumes of {size} voxels have more of them than keys reach")
    return x * y * z, y * z, z, 1
