"""The lift's sparse products on a GPU, as Triton kernels that make no CSR matrix and read half precision as it is.

One program handles one row of a pattern, so sums have one order and results are reproducible. Sums are
float32. Import this module only where Triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Non-zeros that a program reads at once, of which a row of the full-scale lift has 24, and its warps. Measured on an
# H200: four warps take twice as long at float32 and five times as long at float16, since they exchange partial sums.
_ENTRIES, _WARPS = 32, 1


@triton.jit
def _sum_rows(crow, col, source, depth, features, out, channels, ENTRIES: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    first, last = tl.load(crow + row), tl.load(crow + row + 1)
    total = tl.zeros([WIDTH], dtype=tl.float32)
    for start in range(first, last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        inside = entry < last
        column = tl.load(col + entry, mask=inside, other=0).to(tl.int64)
        weight = tl.load(depth + tl.load(source + entry, mask=inside, other=0), mask=inside, other=0.0)
        place = features + column[:, None] * channels + channel[None, :]
        value = tl.load(place, mask=inside[:, None] & (channel < channels)[None, :], other=0.0)
        total += tl.sum(weight.to(tl.float32)[:, None] * value.to(tl.float32), axis=0)
    tl.store(out + row * channels + channel, total, mask=channel < channels)


@triton.jit
def _multiply_rows(crow, col, source, left, right, out, channels, ENTRIES: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    first, last = tl.load(crow + row), tl.load(crow + row + 1)
    own = tl.load(left + row * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for start in range(first, last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        inside = entry < last
        column = tl.load(col + entry, mask=inside, other=0).to(tl.int64)
        place = right + column[:, None] * channels + channel[None, :]
        value = tl.load(place, mask=inside[:, None] & (channel < channels)[None, :], other=0.0)
        product = tl.sum(own[None, :] * value.to(tl.float32), axis=1)
        tl.store(out + tl.load(source + entry, mask=inside, other=0), product, mask=inside)


def sum_rows(crow: Tensor, col: Tensor, source: Tensor, depth: Tensor, features: Tensor) -> Tensor:
    """Compute the rows `[rows, C]` of S @ features for the sparse S with values `depth[source]`.

    `crow` [rows + 1], `col` and `source` [entries] are those of a `Pattern`; `depth` is flat, `features` is
    `[columns, C]`. The result has the precision of the features.
    """
    rows, channels = len(crow) - 1, features.shape[1]
    out = features.new_empty(rows, channels)
    if rows:
        width = triton.next_power_of_2(channels)
        flat, matrix = depth.contiguous(), features.contiguous()
        _sum_rows[(rows,)](
            crow, col, source, flat, matrix, out, channels, ENTRIES=_ENTRIES, WIDTH=width, num_warps=_WARPS
        )
    return out


def multiply_rows(crow: Tensor, col: Tensor, source: Tensor, left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write to `out[source]` the dot product of row and column, `left[row] . right[col]`, of every non-zero.

    `left` is `[rows, C]`, `right` `[columns, C]`, `out` flat; other places of `out` keep their values.
    """
    rows, channels = left.shape
    if rows:
        width = triton.next_power_of_2(channels)
        left, right = left.contiguous(), right.contiguous()
        _multiply_rows[(rows,)](
            crow, col, source, left, right, out, channels, ENTRIES=_ENTRIES, WIDTH=width, num_warps=_WARPS
        )


def is_usable(tensor: Tensor) -> bool:
    """Return whether the kernels can compute with a tensor: on CUDA, of 16 or 32 bits."""
    return tensor.is_cuda and tensor.dtype in (torch.float32, torch.float16, torch.bfloat16)
