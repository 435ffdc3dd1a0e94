"""Which frames of the training root have labels to train on, and which take part without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bridgeta_core.config.experiment import DataConfig
from bridgeta_core.data.dataset import FrameDataset
from bridgeta_core.data.source import Source
from bridgeta_core.utils.errors import BridgeTAError

T = TypeVar("T")


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of n items, those at round(i n / count): the first, and the others at equal distances."""
    count, n = min(count, len(items)), len(items)
    return [items[(2 * i * n + count) // (2 * count)] for i in range(count)]


def scenes_of(dataset: FrameDataset) -> list[str]:
    """The scene of every position of a dataset."""
    names = {i: scene.name for scene in dataset.index.scenes for i in scene.samples}
    return [names[i] for i in dataset.positions]


@dataclass(frozen=True)
class Selection:
    """Scene names, disjoint and in the index's order."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()

    @property
    def expression(self) -> str:
        """All of them, as `Source.select` takes them."""
        return ",".join((*self.labelled, *self.unlabelled))

    @classmethod
    def of(cls, index: Source, data: DataConfig, with_unlabelled: bool) -> Selection:
        """What the settings choose: `data.labelled` of the scenes, and if wanted those of `data.unlabelled`.

        A scene whose labels are used is never among the unlabelled ones.
        """
        scenes = _scenes(index, data.train_scenes)
        chosen = evenly(scenes, max(1, round(data.labelled * len(scenes))))
        rest: list[str] = []
        if with_unlabelled and data.unlabelled != "none":
            pool = scenes if data.unlabelled == "rest" else _scenes(index, data.unlabelled)
            rest = [name for name in pool if name not in set(chosen)]
        return cls(tuple(chosen), tuple(rest))


def _scenes(index: Source, expression: str) -> list[str]:
    positions = set(index.select(expression))
    names = [scene.name for scene in index.scenes if any(i in positions for i in scene.samples)]
    if not names:
        raise BridgeTAError(f"scenes {expression!r} hold no samples", where=index.root, exit_code=2)
    return names
