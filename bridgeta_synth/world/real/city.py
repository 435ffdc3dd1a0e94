"""A real city: the layers of its map expansion as shapes, its lanes, and the window in which scenes take place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from bridgeta_core.data.maps.expansion import UNFIT, expansion_path, read_expansion, read_layers
from bridgeta_core.utils.arrays import Objects
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.world.real.arc_paths import read_lanes
from bridgeta_synth.world.real.centrelines import Strip, find_strip
from bridgeta_synth.world.real.connections import Successors, connect
from bridgeta_synth.world.real.direction import Surroundings, orient_strips
from bridgeta_synth.world.streets.shapes import Points, arc_length

POLYGON_LAYERS = ("drivable_area", "road_segment", "lane", "ped_crossing", "walkway", "stop_line", "carpark_area")
DIVIDER_LAYERS = ("road_divider", "lane_divider")

_WIDEST = 12.0  # metres; wider "lanes" are yards
_SURE = 0.1  # least confidence in the direction of a lane that is used
_SHORTEST = 3.0  # metres of a lane
_CANDIDATES, _DENSE_ENOUGH = 24, 0.7


@dataclass(frozen=True, eq=False)
class City:
    """A city's map layers in global metres.

    shapes: polygons and lines by layer.
    junctions: the polygons of the layer road_segment that are marked as intersections.
    dividers: lane dividers by the mark of most of their nodes.
    stops: stop lines by type ("" where it is not known).
    recorded: the recorded centre lines and successors of lanes, empty where the expansion has none.
    """

    canvas: tuple[float, float]
    shapes: dict[str, Objects]
    junctions: Objects
    dividers: dict[str, Objects]
    stops: dict[str, Objects]
    recorded: tuple[list[Points], Successors]

    @classmethod
    def read(cls, root: Path, location: str) -> City:
        """Read `maps/expansion/<location>.json` below `root`.

        Raises BridgeTAError when it is absent, broken, older than v1.3, or has no lanes.
        """
        content = read_expansion(root, location)
        where = expansion_path(root, location)
        try:
            city = cls._parse(content)
        except UNFIT as error:
            message = f"is not a map expansion v1.3 ({type(error).__name__}: {error})"
            raise BridgeTAError(
                message, where=where, fix="Extract the map expansion v1.3 from nuscenes.org again"
            ) from error
        if not len(city.shapes["lane"]) and not city.recorded[0]:
            message = f"{location} has no lanes, so there is nothing to drive on"
            raise BridgeTAError(message, where=where, fix="Take the complete map expansion v1.3, or another city")
        return city

    @classmethod
    def _parse(cls, content: Mapping[str, Any]) -> City:
        def group_layer(layer: str, key: Callable[[Mapping[str, Any]], str]) -> dict[str, Objects]:
            """Read the shapes of a layer, grouped by a key of their records."""
            groups: dict[str, list[Any]] = {}
            for record in content.get(layer, []):
                groups.setdefault(key(record), []).append(record)
            return {k: read_layers({**content, layer: groups[k]}, [layer])[layer] for k in sorted(groups)}

        shapes = read_layers(content, (*POLYGON_LAYERS, *DIVIDER_LAYERS))
        segments = group_layer("road_segment", lambda record: str(bool(record.get("is_intersection"))))
        width, height = content["canvas_edge"]
        return cls(
            canvas=(float(width), float(height)),
            shapes=shapes,
            junctions=segments.get("True", np.empty(0, dtype=object)),
            dividers=group_layer("lane_divider", _divider_mark),
            stops=group_layer("stop_line", lambda record: str(record.get("stop_line_type") or "")),
            recorded=read_lanes(content),
        )

    def draw_window(self, rng: np.random.Generator, extent: float) -> Polygon:
        """Draw a square of up to `extent` metres, inside the canvas, with many lanes."""
        lines = [LineString(points) for points in self.recorded[0]]
        lanes = np.array(lines, dtype=object) if lines else self.shapes["lane"]
        weight = shapely.length(lanes)
        middles = shapely.get_coordinates(shapely.centroid(lanes))
        chosen = rng.choice(len(lanes), _CANDIDATES, p=weight / weight.sum())
        size = np.minimum(extent, self.canvas)
        low = np.clip(np.floor(middles[chosen] - size / 2), 0, np.array(self.canvas) - size)
        inside = ((middles >= low[:, None]) & (middles <= (low + size)[:, None])).all(axis=-1)
        amount = inside @ weight
        good = np.flatnonzero(amount >= _DENSE_ENOUGH * amount.max())
        x, y = low[good[int(rng.integers(len(good)))]]
        return shapely.box(x, y, x + size[0], y + size[1])

    def find_lanes(self, window: Polygon, driving_side: int) -> tuple[list[Points], Successors]:
        """Find the lanes inside a window, in the direction of travel, and their successors.

        Recorded lanes are taken as they are. Without any, lanes follow from outlines and dividers; lanes of unknown
        direction are left out.
        """
        if self.recorded[0]:
            return clip_lanes(*self.recorded, window)
        lines = {name: unary_union(_near(self.shapes[name], window)) for name in DIVIDER_LAYERS}
        dividers = unary_union(list(lines.values()))
        strips: list[Strip] = []
        for outline in _near(self.shapes["lane"], window):
            low_x, low_y, high_x, high_y = outline.bounds
            beside = shapely.clip_by_rect(dividers, low_x - 1, low_y - 1, high_x + 1, high_y + 1)
            strip = find_strip(outline, beside)
            if strip is not None and strip.width < _WIDEST:
                strips.append(strip)
        road = unary_union([*_near(self.shapes["drivable_area"], window), *_near(self.shapes["lane"], window)])
        stops = unary_union(_near(self.shapes["stop_line"], window))
        around = Surroundings(lines["road_divider"], lines["lane_divider"], stops, road)
        strips, sure = orient_strips(strips, around, driving_side)
        strips = [strip for strip, s in zip(strips, sure, strict=True) if s > _SURE]
        return clip_lanes([strip.centre for strip in strips], connect(strips, road), window)


def clip_lanes(lanes: list[Points], successors: Successors, window: Polygon) -> tuple[list[Points], Successors]:
    """Clip a lane graph to a window; lanes across its border are cut and lead nowhere beyond it."""
    shapely.prepare(window)
    cut: dict[int, tuple[Points, bool, bool]] = {}
    for i, points in enumerate(lanes):
        inside = shapely.contains_xy(window, points)
        # The longest run of points inside.
        edges = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).astype(np.int8)))
        if not len(edges):
            continue
        starts, stops = edges[::2], edges[1::2]
        longest = int(np.argmax(stops - starts))
        start, stop = int(starts[longest]), int(stops[longest])
        part = points[start:stop]
        if len(part) > 1 and arc_length(part)[-1] >= _SHORTEST:
            cut[i] = part, start == 0, stop == len(points)
    number = {i: n for n, i in enumerate(cut)}
    remaining = []
    for i, (_, _, has_end) in cut.items():
        onward = [(j, path) for j, path in successors[i] if has_end and j in cut and cut[j][1]]
        remaining.append(tuple((number[j], path) for j, path in onward if shapely.contains_xy(window, path).all()))
    return [part for part, _, _ in cut.values()], tuple(remaining)


def drop_dead_ends(lanes: list[Points], successors: Successors, least: float = 80.0) -> Successors:
    """Drop successors that soon end, e.g. in a driveway, wherever another one leads on for `least` metres."""
    length = np.array([arc_length(points)[-1] for points in lanes])
    reach = length.copy()
    # Each round looks one lane further; no chain of `least` metres has more lanes.
    for _ in range(40):
        onward = np.array([max((reach[j] for j, _ in follow), default=0.0) for follow in successors])
        reach = np.minimum(length + onward, 10 * least)
    result = []
    for follow in successors:
        good = tuple((j, path) for j, path in follow if reach[j] >= least)
        result.append(good or follow)
    return tuple(result)


def _near(shapes: Objects, window: Polygon) -> list[BaseGeometry]:
    """List the shapes that touch a window."""
    return list(shapes[shapely.intersects(shapes, window)])


def _divider_mark(record: Mapping[str, Any]) -> str:
    """Return the most frequent mark of a lane divider's nodes."""
    marks = [str(segment.get("segment_type") or "") for segment in record.get("lane_divider_segments") or []]
    return max(sorted(set(marks)), key=marks.count) if marks else ""
