"""The six map classes, in the order of every tensor, table and message of the project."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapClass:
    """A map class: its name, the nuScenes map layers that make it up, and its colour (RGB, 0-255)."""

    name: str
    layers: tuple[str, ...]
    colour: tuple[int, int, int]


# Order and layers follow BEVFusion's nuScenes map segmentation; the classes overlap (multi-label). The colours
# can be told apart with any colour vision.
CLASSES: tuple[MapClass, ...] = (
    MapClass("drivable_area", ("drivable_area",), (155, 193, 237)),
    MapClass("ped_crossing", ("ped_crossing",), (239, 205, 15)),
    MapClass("walkway", ("walkway",), (39, 122, 104)),
    MapClass("stop_line", ("stop_line",), (198, 55, 3)),
    MapClass("carpark_area", ("carpark_area",), (168, 60, 205)),
    MapClass("divider", ("road_divider", "lane_divider"), (44, 36, 110)),
)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
LINE_LAYERS: frozenset[str] = frozenset({"road_divider", "lane_divider"})

THRESHOLD = 0.5
"""The probability from which a class counts as present where nothing better is known of a network."""
