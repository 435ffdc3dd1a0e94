"""Which frames make up which batch: the same for one process with large batches as for many with small ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from torch.utils.data import Sampler


class MixedBatches(Sampler[list[int]]):
    """Batches of labelled and unlabelled positions for process `rank` of `world`, shuffled by (seed, epoch) alone.

    Of a batch of `size`, round(share * size) frames are unlabelled where there are any, and at least one is labelled.
    Both kinds are drawn from a stream that is shuffled anew whenever it is used up. The processes share out every
    step's piece of the streams, so that together they take what one process with `world` times the batch would. An
    epoch has `steps` batches; 0 is one pass over the labelled positions without a last, smaller batch. A set that is
    too small for a single batch makes one of all that there is.
    """

    def __init__(
        self,
        labelled: Sequence[int],
        unlabelled: Sequence[int] = (),
        *,
        size: int,
        share: float = 0.0,
        steps: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._frames = (tuple(labelled), tuple(unlabelled))
        without = min(round(share * size), size - 1) if unlabelled else 0
        wanted = (size - without, without)
        self._counts = [min(n, math.ceil(len(frames) / world)) for n, frames in zip(wanted, self._frames, strict=True)]
        self._steps = steps or max(1, len(labelled) // (self._counts[0] * world))
        self._seed, self._rank, self._world = seed, rank, world
        self._epoch = 0

    def __len__(self) -> int:
        return self._steps

    def set_epoch(self, epoch: int) -> None:
        """The epoch that, with the seed, decides the order."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._stream(kind) for kind in range(2)]
        for _ in range(self._steps):
            batch: list[int] = []
            for stream, count in zip(streams, self._counts, strict=True):
                piece = list(islice(stream, count * self._world))
                batch += piece[self._rank * count : (self._rank + 1) * count]
            yield batch

    def _stream(self, kind: int) -> Iterator[int]:
        frames, random = self._frames[kind], np.random.default_rng((self._seed, self._epoch, kind))
        while frames:
            yield from (frames[i] for i in random.permutation(len(frames)))
