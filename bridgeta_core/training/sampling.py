"""Which scenes take part, with or without labels, and which frames make up which batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from torch.utils.data import Sampler

from bridgeta_core.config.experiment import DataConfig
from bridgeta_core.data.dataset import Dataset
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.utils.errors import BridgeTAError

T = TypeVar("T")

_MOST_REPEATS = 1000  # of a root's samples in one pass


@dataclass(frozen=True)
class Selection:
    """Scene names, disjoint and in the dataset's order."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()

    @property
    def expression(self) -> str:
        """All of them, as `Dataset.select` takes them."""
        return ",".join((*self.labelled, *self.unlabelled))

    @classmethod
    def choose(cls, dataset: Dataset, data: DataConfig, with_unlabelled: bool) -> Selection:
        """Choose the share `data.labelled` of the scenes, and with `with_unlabelled` those of `data.unlabelled`.

        A scene whose labels are used is never among the unlabelled ones, and one of `data.unlabelled_root`, whose
        samples follow those of `data.train_root`, never among the labelled ones.
        """
        scenes = _select_scenes(dataset, data.train_scenes)
        end = dataset.parts[len(data.train_roots) - 1].stop
        own = [name for name in scenes if dataset.scene(name).samples.start < end]
        chosen = space_evenly(own, max(1, round(data.labelled * len(own))))
        rest: list[str] = []
        if with_unlabelled and data.unlabelled != "none":
            pool = scenes if data.unlabelled == "rest" else _select_scenes(dataset, data.unlabelled)
            rest = [name for name in pool if name not in set(chosen)]
        return cls(tuple(chosen), tuple(rest))


def _select_scenes(dataset: Dataset, expression: str) -> list[str]:
    positions = set(dataset.select(expression))
    names = [scene.name for scene in dataset.scenes if any(i in positions for i in scene.samples)]
    if not names:
        raise BridgeTAError(f"scenes {expression!r} hold no samples", where=dataset.root, exit_code=2)
    return names


def space_evenly(items: Sequence[T], count: int) -> list[T]:
    """Pick `count` of n items at round(i n / count): the first, and the others at equal distances."""
    count, n = min(count, len(items)), len(items)
    return [items[(2 * i * n + count) // (2 * count)] for i in range(count)]


class MixedBatches(Sampler[list[int]]):
    """Batches of labelled and unlabelled positions for process `rank` of `world`, shuffled by (seed, epoch) alone.

    Of a batch of `size`, round(share * size) frames are unlabelled where there are any, and at least one is labelled.
    Both kinds are drawn from a stream that is shuffled again whenever it is used up. The processes split every step's
    piece of the streams, so together they take what one process with a batch `world` times as large would. An epoch
    has `steps` batches; 0 is one pass over the labelled positions without a last, smaller batch. A set too small for
    one batch makes one batch of all its frames.
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
        """Set the epoch, which decides the order together with the seed."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._shuffle(kind) for kind in range(2)]
        for _ in range(self._steps):
            batch: list[int] = []
            for stream, count in zip(streams, self._counts, strict=True):
                piece = list(islice(stream, count * self._world))
                batch += piece[self._rank * count : (self._rank + 1) * count]
            yield batch

    def _shuffle(self, kind: int) -> Iterator[int]:
        """Yield the frames of a kind in random order, endlessly."""
        frames, random = self._frames[kind], np.random.default_rng((self._seed, self._epoch, kind))
        while frames:
            yield from (frames[i] for i in random.permutation(len(frames)))


def find_classes(frames: FrameDataset, positions: Sequence[int], hidden: bool = False) -> NDArray[np.bool_]:
    """Find the classes that the labels at `positions` show, `[n, 6]`; rasterises all labels, with a progress bar."""
    rows = np.zeros((len(positions), 6), dtype=bool)
    for row, position in zip(rows, track(positions, description="Counting classes", disable=hidden), strict=True):
        masks, known = frames.read_labels(position)
        row[:] = masks.any(axis=(1, 2)) & known
    return rows


def balance_classes(positions: Sequence[int], classes: NDArray[np.bool_], seed: int) -> list[int]:
    """Draw positions so that every class is drawn equally often from the samples that show it, as CBGS does for boxes
    (Zhu et al. 2019) and BEVFusion for maps.

    `classes` `[n, K]` are those of each position. There are about as many draws as pairs of a sample and a class that
    it shows, so a sample of several classes is drawn several times. A class without samples is left out. Within a class
    all samples are drawn equally often, give or take one, which the seed decides.
    """
    pools = [np.flatnonzero(column) for column in classes.T if column.any()]
    if not pools:
        return list(positions)
    draws, random = int(classes.sum()) // len(pools), np.random.default_rng(seed)
    chosen: list[int] = []
    for pool in pools:
        chosen += _draw_evenly(pool, draws, random)
    return [positions[i] for i in chosen]


def weigh_parts(parts: Sequence[Sequence[int]], weights: Sequence[float], seed: int) -> list[int]:
    """Repeat positions until those of the parts are in proportion to their weights, each at least once.

    Within a part all come equally often, give or take one, which the seed decides. Empty parts are left out. Raises
    BridgeTAError (exit code 2) where a part would be repeated more than a thousand times.
    """
    filled = [(part, weight) for part, weight in zip(parts, weights, strict=True) if part]
    draws = max((len(part) / weight for part, weight in filled), default=0.0)
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        if draws * weight > _MOST_REPEATS * len(part) > 0:
            raise BridgeTAError(
                f"data.root_weights = {[*weights]} would repeat the {len(part)} samples of root {number + 1} "
                f"{draws * weight / len(part):.0f} times before each of another root comes once",
                fix="Make the weights less different",
                exit_code=2,
            )
    random, chosen = np.random.default_rng(seed), list[int]()
    for part, weight in filled:
        chosen += _draw_evenly(np.array(part), round(draws * weight), random)
    return chosen


def _draw_evenly(pool: NDArray[np.int64], draws: int, random: np.random.Generator) -> list[int]:
    """Draw from a pool so that each of its values comes equally often, give or take one."""
    whole, rest = divmod(draws, len(pool))
    return [*np.tile(pool, whole).tolist(), *random.permutation(pool)[:rest].tolist()]
