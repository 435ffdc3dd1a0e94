"""The world of some settings: which towns there are, which scene is where, and what is needed to render it."""

from __future__ import annotations

from pathlib import Path

import torch

from bridgeta_core.data.maps.expansion import read_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.map_expansion import expansion
from bridgeta_synth.dataset.recent import Recent
from bridgeta_synth.dataset.records import SceneRecords
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.traffic.scene import Scene, build_scene
from bridgeta_synth.world.real.load import load_town
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

# A town has room for its scenes: as many junctions as this and two per scene, within bounds.
_JUNCTIONS, _FEWEST, _MOST = 24, 30, 120


class World:
    """The towns and scenes of some settings; everything depends on the settings alone, not on the order of asking.

    `locations` are the cities; the scenes take turns in them. The `keep` towns used last are kept. Raises BridgeTAError
    when the settings name a folder of maps that is not there or holds a city that nuScenes does not know.
    """

    def __init__(self, settings: SynthSettings, keep: int = len(facts.LOCATIONS)) -> None:
        self.settings = settings
        known = dict(facts.LOCATIONS)
        names = _cities(Path(settings.maps)) if settings.maps is not None else tuple(known)
        self.locations = names[: settings.scenes]
        self._keep_right = known
        self.town = Recent(self._town, keep)
        self.raster = Recent(self._raster, keep)

    def city_of(self, scene: int) -> int:
        """The number of the city in which a scene takes place."""
        return scene % len(self.locations)

    def scene(self, index: int) -> Scene:
        """A scene by its number in the data set; made anew whenever asked for."""
        settings = self.settings
        town = self.town(self.city_of(index))
        return build_scene(town, settings.seeds, index, settings.duration, settings.weather)

    def renderer(self, scene: Scene, device: torch.device) -> SceneRenderer:
        """What renders a scene."""
        return SceneRenderer(scene, self.settings.seeds, *self.settings.image_size, device)

    def records(self, scene: Scene) -> SceneRecords:
        """The table records of a scene."""
        return SceneRecords(scene, self.settings, self.city_of(scene.index), len(self.locations))

    def _town(self, city: int) -> Town:
        settings, location = self.settings, self.locations[city]
        if settings.maps is not None:
            return load_town(Path(settings.maps), location, settings.seeds, city, settings.relief)
        scenes = -(-settings.scenes // len(self.locations))
        junctions = min(max(_JUNCTIONS + 2 * scenes, _FEWEST), _MOST)
        return build_town(settings.seeds, city, location, self._keep_right[location], settings.relief, junctions)

    def _raster(self, city: int) -> MapRaster:
        """The map as a reader of the written map expansion sees it."""
        content = expansion(self.town(city), self.settings.seeds)
        return MapRaster(self.locations[city], read_layers(content))


def _cities(root: Path) -> tuple[str, ...]:
    """The cities whose map expansions are in a folder, in nuScenes' order."""
    folder = root / "maps" / "expansion"
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
