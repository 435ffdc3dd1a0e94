"""The six map classes, in the order of every tensor, table and message of the project."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapClass:
    """A map class: its name, the nuScenes map layers that make it up, and its colour (RGB, 0-255)."""

    name: str
    layers: tuple[str, ...]
    colour: tuple[int, int, int]


# Order and layers follow BEVFusion's nuScenes map segmentation; the classes overlap (multi-label).
CLASSES: tuple[MapClass, ...] = (
    MapClass("drivable_area", ("drivable_area",), (166, 206, 227)),
    MapClass("ped_crossing", ("ped_crossing",), (251, 154, 153)),
    MapClass("walkway", ("walkway",), (227, 26, 28)),
    MapClass("stop_line", ("stop_line",), (253, 191, 111)),
    MapClass("carpark_area", ("carpark_area",), (255, 127, 0)),
    MapClass("divider", ("road_divider", "lane_divider"), (106, 61, 154)),
)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
LINE_LAYERS: frozenset[str] = frozenset({"road_divider", "lane_divider"})
