"""The tasks that write a synthetic root, independent of each other: its scenes, and the maps of its cities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.map_expansion import write_maps
from bridgeta_synth.dataset.records import name_scene
from bridgeta_synth.dataset.scene_writer import SceneWriter
from bridgeta_synth.dataset.world import World
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.world.town.town import Town


@dataclass(frozen=True)
class Task:
    """A scene to write or, with `scene` None, the maps of a city. `name` is that of its file in a checkpoint."""

    name: str
    city: int
    scene: int | None

    @classmethod
    def all(cls, world: World) -> list[Task]:
        """List the tasks of a dataset, city by city, maps first."""
        tasks = []
        for city, location in enumerate(world.locations):
            tasks.append(cls(f"maps-{location}", city, None))
            scenes = range(city, world.settings.scenes, len(world.locations))
            tasks += [cls(name_scene(index), city, index) for index in scenes]
        return tasks


class TaskWriter:
    """Carries out tasks in an open checkpoint, several files at a time."""

    def __init__(self, checkpoint: Checkpoint, settings: SynthSettings, device: str, threads: int) -> None:
        self.checkpoint, self.settings, self.device, self.threads = checkpoint, settings, torch.device(device), threads
        self.world = World(settings, cached_towns=2)

    def write(self, tasks: Sequence[Task], advance: Callable[[], None]) -> None:
        """Carry out and save tasks; the next one is prepared while one is written. `advance` is called for every file.

        Raises BridgeTAError that names the task if the machine fails it, and RuntimeError that names it otherwise.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            with _name_errors(tasks[0], self.checkpoint.folder):  # there may be no room for another thread
                following = pool.submit(self._prepare, tasks[0], advance)
            for task, after in zip(tasks, [*tasks[1:], None], strict=True):
                try:
                    with _name_errors(task, self.checkpoint.folder):
                        prepared = following.result()
                        if after:
                            following = pool.submit(self._prepare, after, advance)
                        self._write(task, prepared, pool)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _prepare(self, task: Task, advance: Callable[[], None]) -> Town | SceneWriter:
        if task.scene is None:
            return self.world.town(task.city)
        scene = self.world.make_scene(task.scene)
        renderer, raster = self.world.make_renderer(scene, self.device), self.world.raster(task.city)
        return SceneWriter(self.checkpoint.root, self.world.make_records(scene), renderer, raster, advance)

    def _write(self, task: Task, prepared: Town | SceneWriter, pool: Executor) -> None:
        if isinstance(prepared, SceneWriter):
            content = prepared.write(pool)
            self.checkpoint.save(task.name, content, prepared.list_paths())
        else:
            prior = write_maps(self.checkpoint.root, prepared, self.settings.seeds)
            written = (self.checkpoint.root / "maps").rglob("*.*")
            self.checkpoint.save(task.name, {}, [path for path in written if path.stem in (prior, prepared.location)])


@contextmanager
def _name_errors(task: Task, folder: Path) -> Iterator[None]:
    """Make errors name the task that they concern."""
    try:
        yield
    except BridgeTAError as error:
        where, fix = error.where or folder, error.fix
        raise BridgeTAError(f"{task.name}: {error.what}", where=where, fix=fix, exit_code=error.exit_code) from error
    except OSError as error:
        raise BridgeTAError(
            f"{task.name} cannot be written ({error.strerror or error})",
            where=error.filename or folder,
            fix="Check the free space and the permissions of that folder, then repeat the command to go on",
        ) from error
    except Exception as error:
        if (lack := describe_lack_of_memory(error)) is not None:
            raise BridgeTAError(
                f"{task.name}: there is not enough memory ({lack})",
                where=folder,
                fix="Use fewer --jobs; repeat the command to go on",
            ) from error
        raise RuntimeError(f"{task.name} failed ({type(error).__name__}: {error})") from error
