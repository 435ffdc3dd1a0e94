"""The world of some settings: its towns, its scenes, and the means to render them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.expansion import expansion_folder, read_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.map_expansion import build_expansion
from bridgeta_synth.dataset.records import SceneRecords
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.traffic.fleet import EgoPlan
from bridgeta_synth.traffic.scene import Scene, build_scene
from bridgeta_synth.traffic.spread import spread_plans
from bridgeta_synth.world.real.load import load_town
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

T = TypeVar("T")

# A town has room for its scenes: this many junctions and two more per scene, or per keyframe of spread ones, within
# bounds.
_JUNCTIONS, _FEWEST, _MOST = 24, 30, 120


class LruCache(Generic[T]):
    """A cache that builds values by number and holds the last `size` that were used. Safe to use from several threads.

    A copy in another process starts empty.
    """

    def __init__(self, build: Callable[[int], T], size: int) -> None:
        self._build, self._size = build, size
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, number: int) -> T:
        """Return the value of a number, building it if necessary."""
        with self._lock:
            if number not in self._values:
                value = self._build(number)
                self._values[number] = value
                if len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(number)
            return self._values[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return LruCache, (self._build, self._size)


class World:
    """The towns and scenes of some settings. All depend on the settings alone, not on the order of access.

    `locations` are the cities, between which the scenes alternate. The `cached_towns` towns used last stay in memory.
    `labels` says how their maps are rasterised.
    Raises BridgeTAError when the settings name a folder of maps that does not exist or holds a city that nuScenes does
    not know.
    """

    def __init__(
        self,
        settings: SynthSettings,
        cached_towns: int = len(facts.LOCATIONS),
        labels: LabelConfig | None = None,
    ) -> None:
        self.settings, self._labels = settings, labels
        self._keeps_right = dict(facts.LOCATIONS)
        names = _find_cities(Path(settings.maps)) if settings.maps is not None else tuple(self._keeps_right)
        self.locations = names[: settings.scenes]
        self.town = LruCache(self._make_town, cached_towns)
        self.raster = LruCache(self._make_raster, cached_towns)
        self._plans = LruCache(self._spread_plans, cached_towns)

    def city_of(self, scene: int) -> int:
        """Return the number of the city in which a scene takes place."""
        return scene % len(self.locations)

    def make_scene(self, index: int) -> Scene:
        """Build a scene by its number in the dataset; scenes are not cached."""
        settings = self.settings
        city = self.city_of(index)
        plan = self._plans(city)[index // len(self.locations)] if settings.spread else None
        return build_scene(self.town(city), settings.seeds, index, settings.duration, settings.weather, plan)

    def make_renderer(self, scene: Scene, device: torch.device) -> SceneRenderer:
        """Prepare the renderer of a scene."""
        return SceneRenderer(scene, self.settings.seeds, *self.settings.image_size, device)

    def make_records(self, scene: Scene) -> SceneRecords:
        """Prepare the table records of a scene."""
        return SceneRecords(scene, self.settings, self.city_of(scene.index), len(self.locations))

    def _make_town(self, city: int) -> Town:
        settings, location = self.settings, self.locations[city]
        if settings.maps is not None:
            return load_town(Path(settings.maps), location, settings.seeds, city, settings.relief)
        places = self._scenes_per_city * (settings.keyframes if settings.spread else 1)
        junctions = min(max(_JUNCTIONS + 2 * places, _FEWEST), _MOST)
        return build_town(settings.seeds, city, location, self._keeps_right[location], settings.relief, junctions)

    @property
    def _scenes_per_city(self) -> int:
        """Scenes of the city that has most."""
        return -(-self.settings.scenes // len(self.locations))

    def _spread_plans(self, city: int) -> list[EgoPlan]:
        """Plan the scenes of a city in their order."""
        settings = self.settings
        times = [k * settings.keyframe_period_us / 1e6 for k in range(settings.keyframes)]
        rng = np.random.default_rng([*settings.seeds, 9, city])
        return spread_plans(self.town(city), self._scenes_per_city, times, rng)

    def _make_raster(self, city: int) -> MapRaster:
        """Rasterise the map as a reader of the written map expansion sees it."""
        content = build_expansion(self.town(city), self.settings.seeds)
        return MapRaster(self.locations[city], read_layers(content), self._labels)


def _find_cities(root: Path) -> tuple[str, ...]:
    """Find the cities whose map expansions are in a folder, in nuScenes' order."""
    folder = expansion_folder(root)
    known = [name for name, _ in facts.LOCATIONS]
    fix = f"Give the folder that holds maps/expansion with {', '.join(known)} (.json), or some of them"
    if not folder.is_dir():
        raise BridgeTAError("maps: there is no such folder", where=folder, fix=fix, exit_code=2)
    found = sorted(path.stem for path in folder.glob("*.json"))
    unknown = [name for name in found if name not in known]
    if unknown:
        raise BridgeTAError(f"maps: {', '.join(unknown)} is no city of nuScenes", where=folder, fix=fix, exit_code=2)
    if not found:
        raise BridgeTAError("maps: holds no map expansion", where=folder, fix=fix, exit_code=2)
    return tuple(name for name in known if name in found)
