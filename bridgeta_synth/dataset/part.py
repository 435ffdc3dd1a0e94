"""The parts that a synthetic root is made of, each by itself: the scenes, and the maps of the cities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.dataset.checkpoint import PartialRoot
from bridgeta_synth.dataset.map_expansion import write_maps
from bridgeta_synth.dataset.records import scene_name
from bridgeta_synth.dataset.scene_files import SceneFiles
from bridgeta_synth.dataset.world import World
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.world.town.town import Town


@dataclass(frozen=True)
class Part:
    """A scene, or with `scene` None the maps of a city. `name` is that of the part's file."""

    name: str
    city: int
    scene: int | None

    @classmethod
    def all(cls, world: World) -> list[Part]:
        """The parts of a data set, those of one city after the other, its maps first."""
        parts = []
        for city, location in enumerate(world.locations):
            parts.append(cls(f"maps-{location}", city, None))
            scenes = range(city, world.settings.scenes, len(world.locations))
            parts += [cls(scene_name(index), city, index) for index in scenes]
        return parts


class PartWriter:
    """Writes parts into an opened folder, several files at a time."""

    def __init__(self, folder: PartialRoot, settings: SynthSettings, device: str, threads: int) -> None:
        self.folder, self.settings, self.device, self.threads = folder, settings, torch.device(device), threads
        self.world = World(settings, keep=2)

    def write(self, parts: Sequence[Part], advance: Callable[[], None]) -> None:
        """Write and save parts; the next one is prepared while one is written. `advance` is called for every file.

        Raises BridgeTAError that names the part if the machine fails it, and RuntimeError that names it otherwise.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            following = pool.submit(self._prepare, parts[0], advance)
            for part, after in zip(parts, [*parts[1:], None], strict=True):
                try:
                    with _named(part, self.folder.folder):
                        prepared = following.result()
                        if after:
                            following = pool.submit(self._prepare, after, advance)
                        self._write(part, prepared, pool)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _prepare(self, part: Part, advance: Callable[[], None]) -> Town | SceneFiles:
        if part.scene is None:
            return self.world.town(part.city)
        scene = self.world.scene(part.scene)
        renderer, raster = self.world.renderer(scene, self.device), self.world.raster(part.city)
        return SceneFiles(self.folder.root, self.world.records(scene), renderer, raster, advance)

    def _write(self, part: Part, prepared: Town | SceneFiles, pool: Executor) -> None:
        if isinstance(prepared, SceneFiles):
            content = prepared.write(pool)
            self.folder.save(part.name, content, prepared.paths())
        else:
            prior = write_maps(self.folder.root, prepared, self.settings.seeds)
            written = (self.folder.root / "maps").rglob("*.*")
            self.folder.save(part.name, {}, [path for path in written if path.stem in (prior, prepared.location)])


@contextmanager
def _named(part: Part, folder: Path) -> Iterator[None]:
    """Errors name the part that they concern."""
    try:
        yield
    except BridgeTAError as error:
        where, fix = error.where or folder, error.fix
        raise BridgeTAError(f"{part.name}: {error.what}", where=where, fix=fix, exit_code=error.exit_code) from error
    except OSError as error:
        raise BridgeTAError(
            f"{part.name} cannot be written ({error.strerror or error})",
            where=error.filename or folder,
            fix="Check the free space and the permissions of that folder, then repeat the command to go on",
        ) from error
    except Exception as error:
        raise RuntimeError(f"{part.name} failed ({type(error).__name__}: {error})") from error
